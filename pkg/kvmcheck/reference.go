package kvmcheck

import (
	"fmt"
	"strings"
)

// Reference returns docs/checks.md: every check and every reason.
func (c Catalogue) Reference() string {
	var b strings.Builder
	b.WriteString(`# Checks and reasons

<!-- Made from the catalogue of checks by go test ./cmd/nodeagent -run TestReference -update. Do not edit. -->

` + "`nodeagent check`" + ` asks a host these questions. Each answer is a finding: what was seen, with the file or
ioctl that showed it; unless it is ready, a reason, which is one word for one cause; and what to do.

| status | meaning |
|---|---|
| ` + "`Ready`" + ` | it was seen to be so |
| ` + "`NotReady`" + ` | it was seen not to be so |
| ` + "`Unknown`" + ` | nobody can tell: what was not read is never taken for a no |

What a finding means for the node is its level, which depends on the profile:

| level | when the finding is not ready | in a table |
|---|---|---|
| ` + "`required`" + ` | VMs cannot run, and the node is not ready | NOT READY |
| ` + "`recommended`" + ` | VMs run, but not as they should | warning |
| ` + "`optional`" + ` | some VMs want it | off |
| ` + "`skipped`" + ` | nobody asks: the finding is left out | |

The node is ` + "`NotReady`" + ` when anything required is, else ` + "`Unknown`" + ` when anything required is, else ` + "`Ready`" + `:
exit status 1, 2 and 0.
`)
	c.referProfiles(&b)
	c.referChecks(&b)
	c.referReasons(&b)
	return b.String()
}

func (c Catalogue) referProfiles(b *strings.Builder) {
	b.WriteString("\n## Profiles\n\n" +
		"`nodeagent check --profile NAME` judges for a kind of node. Profiles and checks of your own go into the\n" +
		"configuration file, section `readiness`; `nodeagent config` prints it with examples.\n\n")
	for _, profile := range Profiles() {
		fmt.Fprintf(b, "- `%s`: %s\n", profile.Name, profile.Purpose())
	}
	b.WriteString("\n| check |")
	for _, profile := range Profiles() {
		fmt.Fprintf(b, " %s |", profile.Name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(Profiles())) + "\n")
	for _, check := range c.Checks {
		fmt.Fprintf(b, "| [`%s`](#%s) |", check.Key(), anchor(check.Key()))
		for _, profile := range Profiles() {
			fmt.Fprintf(b, " %s |", profile.LevelOf(check))
		}
		b.WriteString("\n")
	}
}

func (c Catalogue) referChecks(b *strings.Builder) {
	b.WriteString("\n## Checks\n\nEvery check can also give " + linkTo(ReadFailed) + ". A name with `*` stands for a check per page size, CPU or device.\n")
	for _, check := range c.Checks {
		fmt.Fprintf(b, "\n### %s\n\n%s\n\n- Reads: %s\n- Reasons: %s\n",
			escape(check.Key()), escape(check.Asks), escape(check.Reads), links(check.Reasons, linkTo))
	}
}

func (c Catalogue) referReasons(b *strings.Builder) {
	b.WriteString("\n## Reasons\n\n`nodeagent check --explain REASON` prints one of these.\n")
	for _, cause := range c.Causes {
		fmt.Fprintf(b, "\n### %s\n\n%s\n\n", cause.Reason, escape(cause.Meaning))
		checks := c.checksThatGive(cause.Reason)
		switch {
		case cause.Reason == ReadFailed:
			b.WriteString("Given by: every check.\n")
		case len(checks) == 0:
			b.WriteString("Given by: rules of your own.\n")
		default:
			fmt.Fprintf(b, "Given by: %s.\n", links(checks, func(check Check) string {
				return fmt.Sprintf("[`%s`](#%s)", check.Key(), anchor(check.Key()))
			}))
		}
		if len(cause.Fixes) == 0 {
			continue
		}
		b.WriteString("\n")
		for _, fix := range cause.Fixes {
			if fix.On != "" {
				fmt.Fprintf(b, "- %s: %s\n", escape(fix.On), escape(fix.Do))
			} else {
				fmt.Fprintf(b, "- %s\n", escape(fix.Do))
			}
		}
	}
}

func linkTo(reason Reason) string { return fmt.Sprintf("[%s](#%s)", reason, anchor(string(reason))) }

func links[T any](of []T, link func(T) string) string {
	var all []string
	for _, one := range of {
		all = append(all, link(one))
	}
	return strings.Join(all, ", ")
}

// anchor names a heading as GitHub does.
func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789_-", r) {
			return r
		}
		return -1
	}, strings.ToLower(heading))
}

// escape keeps Markdown from taking what a path holds for its own.
func escape(text string) string {
	var pairs []string
	for _, special := range []string{"*", "_", "<", ">", "[", "]", "|", "`"} {
		pairs = append(pairs, special, `\`+special)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}
