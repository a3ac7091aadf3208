package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/test/vm"
	"github.com/virtnode/nodeagent/test/vm/wire"
)

func vmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vm",
		Short: "A node in a VM: KVM, SR-IOV, IOMMU, NUMA under QEMU's TCG",
	}
	cmd.AddCommand(vmPrepareCommand(), vmShellCommand(), vmExecCommand())
	return cmd
}

func vmPrepareCommand() *cobra.Command {
	var newer bool
	cmd := &cobra.Command{
		Use:   "prepare",
		Short: "Make the kernel and the initramfs in the cache",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return vm.Prepare(cmd.Context(), newer, func(line string) {
				_, _ = fmt.Fprintln(cmd.ErrOrStderr(), ">> vm:", line)
			})
		},
	}
	cmd.Flags().BoolVar(&newer, "newer", false, "look for a kernel that is newer than the cached one")
	return cmd
}

func vmShellCommand() *cobra.Command {
	profile := &vmProfile{}
	cmd := &cobra.Command{
		Use:   "shell [-- SCRIPT...]",
		Short: "Boot a VM and open a shell in it, or run a script",
		Example: `  bed vm shell --profile sriov --share .
  bed vm shell --profile numa -- cat /sys/devices/system/node/online
  bed vm shell --profile sriov --append intel_iommu=off -- 'ls /sys/kernel/iommu_groups | wc -l'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return profile.run(cmd.Context(), func(ctx context.Context, m *vm.Machine) (int, error) {
				if len(args) == 0 {
					return shell(ctx, m)
				}
				return m.Run(ctx, vm.Command{
					Argv:   vm.Script(strings.Join(args, " ")),
					Stdout: os.Stdout, Stderr: os.Stderr,
				})
			})
		},
	}
	profile.flags(cmd)
	return cmd
}

func vmExecCommand() *cobra.Command {
	profile := &vmProfile{}
	cmd := &cobra.Command{
		Use:   "exec -- PROGRAM [ARGUMENT...]",
		Short: "Boot a VM and run a static program of this machine in it, as go test -exec wants it",
		Example: `  go build -o /tmp/bed ./test/bed
  CGO_ENABLED=0 go test -exec '/tmp/bed vm exec --profile kvm --' ./internal/hostfs`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return profile.run(cmd.Context(), func(ctx context.Context, m *vm.Machine) (int, error) {
				return m.RunBinary(ctx, args, os.Stdout, os.Stderr)
			})
		},
	}
	profile.flags(cmd)
	return cmd
}

// vmProfile is a profile with a person's changes.
type vmProfile struct {
	name, memory, share string
	append, modules     []string
}

func (p *vmProfile) flags(cmd *cobra.Command) {
	var names []string
	for _, known := range vm.Profiles() {
		names = append(names, known.Name)
	}
	cmd.Flags().StringVar(&p.name, "profile", names[0], "the machine: "+strings.Join(names, ", "))
	cmd.Flags().StringVar(&p.memory, "memory", "", "memory instead of the profile's, such as 3G")
	cmd.Flags().StringVar(&p.share, "share", "", "folder that is /share in the guest (default: a new one, removed at the end)")
	cmd.Flags().StringArrayVar(&p.append, "append", nil, "more of the kernel's command line")
	cmd.Flags().StringSliceVar(&p.modules, "modules", nil, "modules to load instead of the profile's")
	cmd.Flags().Lookup("modules").DefValue = "the profile's"
}

// run boots the machine, does something with it, and leaves the process with
// the exit status of that.
func (p *vmProfile) run(ctx context.Context, do func(context.Context, *vm.Machine) (int, error)) error {
	known := vm.Profiles()
	i := slices.IndexFunc(known, func(k vm.Profile) bool { return k.Name == p.name })
	if i < 0 {
		return fmt.Errorf("no profile %q", p.name)
	}
	if err := vm.Missing(); err != nil {
		return err
	}
	m, err := vm.Boot(ctx, p.change(known[i]))
	if err != nil {
		return err
	}
	code, err := do(ctx, m)
	if closed := m.Close(); err == nil {
		err = closed
	}
	if err == nil && code != 0 {
		// go test -exec reads the status of the test from this process.
		os.Exit(code)
	}
	return err
}

func (p *vmProfile) change(profile vm.Profile) vm.Profile {
	if p.memory != "" {
		profile.Memory = p.memory
	}
	if p.modules != nil {
		profile.Modules = p.modules
	}
	profile.Append = append(profile.Append, p.append...)
	profile.Share = p.share
	return profile
}

// shell joins the guest's bash to the standard streams: as a terminal when
// they are one.
func shell(ctx context.Context, m *vm.Machine) (int, error) {
	c := vm.Command{Argv: []string{"/bin/bash"}, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	in := int(os.Stdin.Fd())
	before, err := unix.IoctlGetTermios(in, unix.TCGETS)
	if err != nil { // not a terminal: a script from a pipe
		return m.Run(ctx, c)
	}
	size, err := unix.IoctlGetWinsize(in, unix.TIOCGWINSZ)
	if err != nil {
		return 0, fmt.Errorf("read the terminal's size: %w", err)
	}
	c.TTY = &wire.Size{Rows: size.Row, Cols: size.Col}
	if err := rawTerminal(in, *before); err != nil {
		return 0, err
	}
	defer restoreTerminal(os.Stderr, in, before)
	return m.Run(ctx, c)
}

// rawTerminal passes every key on, as cfmakeraw(3) does.
func rawTerminal(fd int, raw unix.Termios) error {
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return fmt.Errorf("set the terminal: %w", err)
	}
	return nil
}

func restoreTerminal(stderr io.Writer, fd int, before *unix.Termios) {
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, before); err != nil {
		_, _ = fmt.Fprintln(stderr, "bed: the terminal is left as it is (try stty sane):", err)
	}
}
