package qemu

import (
	"math/rand/v2"
	"testing"
)

func TestCPUTimeIsSplitAsTheKernelDoes(t *testing.T) {
	for name, c := range map[string]struct {
		used Account
		want times
	}{
		"never ran":                        {Account{}, times{}},
		"no tick found it":                 {Account{Runtime: 7}, times{7, 0}},
		"always in user mode":              {Account{Runtime: 7, User: 4_000_000}, times{7, 0}},
		"always in the kernel":             {Account{Runtime: 7, System: 4_000_000}, times{0, 7}},
		"a quarter in the kernel":          {Account{Runtime: 1000, User: 12, System: 4}, times{750, 250}},
		"ticks found it more than it ran":  {Account{Runtime: 10, User: 30, System: 10}, times{8, 2}},
		"a third is cut":                   {Account{Runtime: 100, User: 2, System: 1}, times{67, 33}},
		"years of many threads":            {Account{Runtime: 1 << 62, User: 3 << 60, System: 1 << 60}, times{3 << 60, 1 << 60}},
		"told nothing less than before":    {Account{Runtime: 100, User: 90, System: 10, ToldUser: 40, ToldSystem: 20}, times{80, 20}},
		"told no less user time either":    {Account{Runtime: 100, User: 10, System: 90, ToldUser: 60, ToldSystem: 20}, times{60, 40}},
		"nothing new":                      {Account{Runtime: 80, User: 10, System: 90, ToldUser: 60, ToldSystem: 20}, times{60, 20}},
		"told more than the sum":           {Account{Runtime: 70, User: 10, System: 90, ToldUser: 60, ToldSystem: 20}, times{60, 20}},
		"more ticks than a number can say": {Account{Runtime: 70, User: 1<<64 - 1, System: 3}, times{0, 70}},
		"more of everything than there is": {Account{Runtime: 1<<64 - 1, User: 1<<64 - 1, System: 1<<64 - 1}, times{1<<64 - 1, 0}},
	} {
		if got := c.used.times(); got != c.want {
			t.Errorf("%s: have %+v, want %+v", name, got, c.want)
		}
	}
}

// TestCPUTimeOnlyGrows takes over sums that go forth and back, split in any way.
func TestCPUTimeOnlyGrows(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var spent times
	for range 10_000 {
		sum := spent.user + spent.system
		if back := random.Uint64N(30); back < sum {
			sum -= back
		}
		sum += random.Uint64N(40)
		system := random.Uint64N(sum + 1)
		before := spent
		spent.advance(times{sum - system, system})
		if spent.user < before.user || spent.system < before.system || spent.user+spent.system != max(sum, before.user+before.system) {
			t.Fatalf("from %+v to %+v by %d ns, %d in the kernel", before, spent, sum, system)
		}
	}
}
