package main

import (
	"github.com/virtnode/nodeagent/pkg/hostnet"
	"github.com/virtnode/nodeagent/pkg/qemu"
)

// vfCounters reads for telemetry what the network knows of virtual functions.
type vfCounters struct{}

func (vfCounters) VFCounters(pf string) (map[int]qemu.VFCounters, error) {
	counted, err := hostnet.ReadVFCounters(pf)
	if err != nil {
		return nil, err
	}
	told := make(map[int]qemu.VFCounters, len(counted))
	for index, c := range counted {
		told[index] = qemu.VFCounters{
			Receive:   qemu.Traffic{Bytes: qemu.Some(c.RxBytes), Packets: qemu.Some(c.RxPackets), Drops: qemu.Some(c.RxDropped)},
			Transmit:  qemu.Traffic{Bytes: qemu.Some(c.TxBytes), Packets: qemu.Some(c.TxPackets), Drops: qemu.Some(c.TxDropped)},
			Broadcast: qemu.Some(c.Broadcast), Multicast: qemu.Some(c.Multicast),
		}
	}
	return told, nil
}
