package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/virtnode/nodeagent/internal/config"
)

// settings is where the configuration comes from: a file, then flags over it.
type settings struct {
	file   string
	listen string
	web    string
	uris   []string
	root   string
	flags  *pflag.FlagSet
}

func addSettings(cmd *cobra.Command) *settings {
	s := &settings{flags: cmd.Flags()}
	s.addFile()
	s.flags.StringVar(&s.listen, "web.listen-address", config.Default().Web.ListenAddress, "address to serve on")
	s.flags.StringVar(&s.web, "web.config.file", "", "file with TLS and authentication for the web server (Prometheus exporter-toolkit)")
	s.addURIs()
	return s
}

// addRoot adds the flag --root. It is a flag only: a container's image of the
// host does not change while the agent runs.
func (s *settings) addRoot() {
	s.flags.StringVar(&s.root, "root", "/", "where the host's / is: another directory in a container that has it mounted there")
}

func (s *settings) addURIs() {
	s.flags.StringArrayVar(&s.uris, "libvirt-uri", nil, "libvirt daemon to ask, repeatable, such as qemu+unix:///system?socket=PATH (default: find local ones)")
}

func (s *settings) addFile() {
	s.flags.StringVar(&s.file, "config", "", "configuration file (YAML); see: nodeagent config")
}

// load returns the effective configuration; an error names the file and the line.
func (s *settings) load() (config.Config, error) {
	data, err := s.read()
	if err != nil {
		return config.Config{}, err
	}
	return s.parse(data)
}

// read returns the file's content, nil when there is no file to read.
func (s *settings) read() ([]byte, error) {
	if s.file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(s.file)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return data, nil
}

func (s *settings) parse(data []byte) (config.Config, error) {
	effective, err := config.Parse(data, known())
	if err != nil {
		return effective, s.nameFile(err)
	}
	if s.flags.Changed("web.listen-address") {
		effective.Web.ListenAddress = s.listen
	}
	if s.flags.Changed("web.config.file") {
		effective.Web.ConfigFile = s.web
	}
	if s.flags.Changed("libvirt-uri") {
		effective.Telemetry.LibvirtURIs = s.uris
	}
	var bad []error
	for _, problem := range config.Validate(effective, known()) {
		bad = append(bad, fmt.Errorf("flags: %w", &problem))
	}
	return effective, errors.Join(bad...)
}

// nameFile puts the file before each of the errors in a joined error.
func (s *settings) nameFile(err error) error {
	joined, several := err.(interface{ Unwrap() []error })
	if !several {
		return fmt.Errorf("%s: %w", s.file, err)
	}
	var named []error
	for _, one := range joined.Unwrap() {
		named = append(named, s.nameFile(one))
	}
	return errors.Join(named...)
}

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the effective configuration, every field explained",
		Long: `config prints the configuration that run would use, as YAML with a comment on
every field: the defaults, the file's values over them, then the flags'. What it
prints is a valid configuration file.

An invalid file is refused with the line and the field.`,
		Example: `  nodeagent config > nodeagent.yaml
  nodeagent config --config nodeagent.yaml`,
		Args: cobra.NoArgs,
	}
	from := addSettings(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		effective, err := from.load()
		if err != nil {
			return err
		}
		text, err := config.Print(effective)
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(text)
		return err
	}
	return cmd
}
