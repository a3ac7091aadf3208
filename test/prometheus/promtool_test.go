package prometheus

import (
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/test/hosttest"
)

func TestCheckMetrics(t *testing.T) {
	hosttest.Need(t, hosttest.Libvirt, Missing())
	if err := CheckMetrics(t.Context(), []byte(exposition)); err != nil {
		t.Errorf("a good exposition is refused: %v", err)
	}
	for name, test := range map[string]struct{ text, why string }{
		"not an exposition":        {"bed answer 42\n", "expected float"},
		"a counter without _total": {"# HELP bed_reads Reads.\n# TYPE bed_reads counter\nbed_reads 1\n", "_total"},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckMetrics(t.Context(), []byte(test.text))
			if err == nil || !strings.Contains(err.Error(), test.why) {
				t.Errorf("the error is %v, want one about %q", err, test.why)
			}
		})
	}
}
