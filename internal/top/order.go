package top

import (
	"cmp"
	"fmt"
	"strings"
)

// Order is what rows are sorted by, the largest first.
type Order struct {
	Key   byte // that chooses it
	Name  string
	value func(*Row) float64
}

// orders are all there are.
var orders = [...]Order{
	{'c', "cpu", func(r *Row) float64 { return sum(r.CPU) }},
	{'d', "delay", func(r *Row) float64 { return sum(r.Delay) }},
	{'x', "exits", func(r *Row) float64 { return sum(r.Exits) }},
	{'i', "io", func(r *Row) float64 { return sum(r.ReadBytes, r.WriteBytes) }},
	{'n', "net", func(r *Row) float64 { return sum(r.RxBytes, r.TxBytes) }},
	{'m', "memory", func(r *Row) float64 { return sum(r.Memory) }},
	{'v', "vm", func(*Row) float64 { return 0 }}, // by name alone
}

// ParseOrder finds an order by its name.
func ParseOrder(name string) (Order, error) {
	var names []string
	for _, o := range orders {
		if o.Name == name {
			return o, nil
		}
		names = append(names, o.Name)
	}
	return Order{}, fmt.Errorf("--sort %q: want one of %s", name, strings.Join(names, ", "))
}

// OrderOf finds an order by its key.
func OrderOf(key byte) (Order, bool) {
	for _, o := range orders {
		if o.Key == key {
			return o, true
		}
	}
	return Order{}, false
}

// compare puts the larger one first, and what is unknown last.
func (o Order) compare(a, b *Row) int { return cmp.Compare(o.value(b), o.value(a)) }

// sum is of what is known; -1 when nothing is.
func sum(rates ...Rate) float64 {
	total := -1.0
	for _, r := range rates {
		if r != nil {
			total = max(total, 0) + *r
		}
	}
	return total
}
