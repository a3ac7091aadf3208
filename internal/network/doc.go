// Package network is flow 2 as a whole: it joins what links and virtual
// functions need into one plan, carries it out while the node stays reachable,
// and keeps looking whether it still holds.
package network
