package libvirt

import (
	"fmt"
	"net"
)

// Workload is what a domain does after it has booted, seen from outside.
type Workload int

// The workloads; Idle is the usual one.
const (
	// Idle halts the processor for good: it costs nothing.
	Idle Workload = iota
	// Busy keeps the first vCPU running, and one of the machine's with it.
	Busy
	// Dirty writes half a MiB of its memory anew, over and over, so that a
	// migration which is slower than that does not end.
	Dirty
	// DiskAndNet reads and writes every disk, and sends ARP probes through the
	// first virtio NIC and takes the answers, 18 times a second. The answers
	// come from the kernel at the other end of the tap.
	DiskAndNet
)

// String is the workload's name.
func (w Workload) String() string {
	switch w {
	case Idle:
		return "idle"
	case Busy:
		return "busy"
	case Dirty:
		return "dirty"
	case DiskAndNet:
		return "disk and net"
	}
	return fmt.Sprintf("workload %d", int(w))
}

// bootSector is the sector that does the workload, with mac as the sender of
// the packets.
func (w Workload) bootSector(mac net.HardwareAddr) ([]byte, error) {
	switch w {
	case Idle:
		return assemble(idleProgram())
	case Busy:
		return assemble(busyProgram())
	case Dirty:
		return assemble(dirtyProgram())
	case DiskAndNet:
		return assemble(trafficProgram(mac))
	}
	return nil, fmt.Errorf("no program for %v", w)
}

func idleProgram() []instruction {
	return []instruction{
		op("cli", 0xFA),
		at("halt"),
		op("hlt", 0xF4),
		near("jmp halt", "halt", 0xE9),
	}
}

func busyProgram() []instruction {
	return []instruction{
		op("cli", 0xFA),
		at("spin"),
		near("jmp spin", "spin", 0xE9),
	}
}

func dirtyProgram() []instruction {
	return []instruction{
		op("cli", 0xFA),
		op("cld", 0xFC),
		at("pass"),
		op("inc bx ; what is written", 0x43),
		op("mov dx, 1000", 0xBA, 0x00, 0x10),
		at("segment"),
		op("mov es, dx", 0x8E, 0xC2),
		op("xor di, di", 0x31, 0xFF),
		op("mov cx, 8000 ; words", 0xB9, 0x00, 0x80),
		op("mov ax, bx", 0x89, 0xD8),
		op("rep stosw", 0xF3, 0xAB),
		op("add dx, 1000", 0x81, 0xC2, 0x00, 0x10),
		op("cmp dx, 9000 ; the BIOS's own memory is above", 0x81, 0xFA, 0x00, 0x90),
		near("jb segment", "segment", 0x0F, 0x82),
		near("jmp pass", "pass", 0xE9),
	}
}

// hostAddress is what the guests probe for: every tap of a domain with traffic
// has it (192.0.2.0/24 is reserved for documentation, so nobody else's is it).
const hostAddress = "192.0.2.1"

// trafficProgram is DiskAndNet. The NIC is driven through virtio's legacy
// registers, which QEMU's machine "pc" offers as I/O ports:
//
//	+08 queue address >> 12   +0E queue select   +10 queue notify   +12 status
//
// A queue of 256 entries is three parts: descriptors at +0000, the available
// ring at +1000 (flags, index), the used ring at +2000 (flags, index). Both
// rings stay zero but for their indices, so that each entry names descriptor 0:
//
//	10000 send queue (1): descriptor 0 is the frame in this sector
//	14000 receive queue (0): descriptor 0 is a buffer of 2 KiB at 18000
//
// All of it is in segment 1000, in ES. BP is the NIC's first port, 0 without one.
func trafficProgram(mac net.HardwareAddr) []instruction {
	var program []instruction
	program = append(program, findNIC()...)
	program = append(program, startNIC()...)
	program = append(program, moveData()...)
	return append(program, trafficData(mac)...)
}

// findNIC asks the BIOS for the first virtio NIC and makes it a bus master.
func findNIC() []instruction {
	return []instruction{
		op("xor ax, ax", 0x31, 0xC0),
		op("mov ds, ax", 0x8E, 0xD8),
		op("mov ss, ax", 0x8E, 0xD0),
		op("mov sp, 7C00", 0xBC, 0x00, 0x7C),
		op("mov ax, B102 ; find a PCI device", 0xB8, 0x02, 0xB1),
		op("mov cx, 1000 ; its device", 0xB9, 0x00, 0x10),
		op("mov dx, 1AF4 ; its vendor", 0xBA, 0xF4, 0x1A),
		op("xor si, si ; the first one", 0x31, 0xF6),
		op("int 1A ; BX is where it is", 0xCD, 0x1A),
		op("mov bp, 0", 0xBD, 0x00, 0x00),
		near("jc loop", "loop", 0x0F, 0x82),
		op("mov ax, B10C ; write a configuration word", 0xB8, 0x0C, 0xB1),
		op("mov di, 4 ; the command register", 0xBF, 0x04, 0x00),
		op("mov cx, 7 ; ports, memory, bus master", 0xB9, 0x07, 0x00),
		op("int 1A", 0xCD, 0x1A),
		op("mov ax, B109 ; read a configuration word", 0xB8, 0x09, 0xB1),
		op("mov di, 10 ; BAR 0", 0xBF, 0x10, 0x00),
		op("int 1A", 0xCD, 0x1A),
		op("and cl, FC", 0x80, 0xE1, 0xFC),
		op("mov bp, cx", 0x89, 0xCD),
	}
}

// startNIC resets the NIC, gives it both queues and says that the driver is
// there. It accepts no feature, and asks for no interrupt.
func startNIC() []instruction {
	return []instruction{
		op("lea dx, [bp+12]", 0x8D, 0x56, 0x12),
		op("xor al, al", 0x30, 0xC0),
		op("out dx, al ; reset", 0xEE),
		op("mov al, 3", 0xB0, 0x03),
		op("out dx, al ; acknowledge, driver", 0xEE),

		op("mov ax, 1000", 0xB8, 0x00, 0x10),
		op("mov es, ax", 0x8E, 0xC0),
		op("xor di, di", 0x31, 0xFF),
		op("xor ax, ax", 0x31, 0xC0),
		op("mov cx, 4000", 0xB9, 0x00, 0x40),
		op("cld", 0xFC),
		op("rep stosw ; clear 32 KiB", 0xF3, 0xAB),

		op("mov word es:[4000], 8000 ; receive to 18000,", 0x26, 0xC7, 0x06, 0x00, 0x40, 0x00, 0x80),
		op("mov word es:[4002], 1", 0x26, 0xC7, 0x06, 0x02, 0x40, 0x01, 0x00),
		op("mov word es:[4008], 800 ; 2 KiB,", 0x26, 0xC7, 0x06, 0x08, 0x40, 0x00, 0x08),
		op("mov word es:[400C], 2 ; which the NIC writes", 0x26, 0xC7, 0x06, 0x0C, 0x40, 0x02, 0x00),
		op("mov word es:[5000], 1 ; no interrupt", 0x26, 0xC7, 0x06, 0x00, 0x50, 0x01, 0x00),
		address("mov word es:[0], frame ; send the frame,", "frame", 0x26, 0xC7, 0x06, 0x00, 0x00),
		op("mov word es:[8], 70", 0x26, 0xC7, 0x06, 0x08, 0x00, frameSize, 0x00),
		op("mov word es:[1000], 1 ; no interrupt", 0x26, 0xC7, 0x06, 0x00, 0x10, 0x01, 0x00),

		op("lea dx, [bp+0E]", 0x8D, 0x56, 0x0E),
		op("xor ax, ax", 0x31, 0xC0),
		op("out dx, ax ; queue 0", 0xEF),
		op("lea dx, [bp+8]", 0x8D, 0x56, 0x08),
		op("mov eax, 14", 0x66, 0xB8, 0x14, 0x00, 0x00, 0x00),
		op("out dx, eax ; is at 14000", 0x66, 0xEF),
		op("lea dx, [bp+0E]", 0x8D, 0x56, 0x0E),
		op("mov ax, 1", 0xB8, 0x01, 0x00),
		op("out dx, ax ; queue 1", 0xEF),
		op("lea dx, [bp+8]", 0x8D, 0x56, 0x08),
		op("mov eax, 10", 0x66, 0xB8, 0x10, 0x00, 0x00, 0x00),
		op("out dx, eax ; is at 10000", 0x66, 0xEF),
		op("lea dx, [bp+12]", 0x8D, 0x56, 0x12),
		op("mov al, 7", 0xB0, 0x07),
		op("out dx, al ; driver ready", 0xEE),
	}
}

// moveData works once for each tick of the BIOS's timer. It never offers more
// than 8 frames to send and 16 buffers to receive into beyond what the NIC has
// used: QEMU gives up a NIC whose driver runs more than a ring ahead.
func moveData() []instruction {
	return []instruction{
		at("loop"),
		op("sti", 0xFB),
		op("hlt", 0xF4),
		op("mov dl, 80 ; the first disk", 0xB2, 0x80),
		at("disk"),
		address("mov si, blocks", "blocks", 0xBE),
		op("mov ah, 42 ; read blocks", 0xB4, 0x42),
		op("int 13", 0xCD, 0x13),
		op("mov ax, 4300 ; write blocks", 0xB8, 0x00, 0x43),
		op("int 13", 0xCD, 0x13),
		op("inc dl", 0xFE, 0xC2),
		op("mov al, dl", 0x88, 0xD0),
		op("sub al, 80", 0x2C, 0x80),
		op("cmp al, [475] ; how many disks there are", 0x3A, 0x06, 0x75, 0x04),
		near("jb disk", "disk", 0x0F, 0x82),

		op("test bp, bp", 0x85, 0xED),
		near("jz loop", "loop", 0x0F, 0x84),
		op("mov ax, es:[2002] ; frames sent", 0x26, 0xA1, 0x02, 0x20),
		op("add ax, 8", 0x05, 0x08, 0x00),
		op("mov es:[1002], ax ; and 8 more", 0x26, 0xA3, 0x02, 0x10),
		op("lea dx, [bp+10]", 0x8D, 0x56, 0x10),
		op("mov ax, 1", 0xB8, 0x01, 0x00),
		op("out dx, ax ; look at queue 1", 0xEF),
		op("mov ax, es:[6002] ; frames received", 0x26, 0xA1, 0x02, 0x60),
		op("add ax, 10", 0x05, 0x10, 0x00),
		op("mov es:[5002], ax ; and 16 more", 0x26, 0xA3, 0x02, 0x50),
		op("xor ax, ax", 0x31, 0xC0),
		op("out dx, ax ; look at queue 0", 0xEF),
		near("jmp loop", "loop", 0xE9),
	}
}

// frameSize is virtio's header and the shortest Ethernet frame.
const frameSize = 10 + 60

// trafficData is what the program sends and where on a disk it works.
func trafficData(mac net.HardwareAddr) []instruction {
	target := net.ParseIP(hostAddress).To4()
	return []instruction{
		at("blocks"),
		op("16 bytes of request; 8 sectors", 16, 0, 8, 0),
		op("memory 0800:0000", 0x00, 0x00, 0x00, 0x08),
		op("from sector 64", 64, 0, 0, 0, 0, 0, 0, 0),

		at("frame"),
		op("virtio's header", make([]byte, 10)...),
		op("to everybody", 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF),
		op("from the NIC", mac...),
		op("ARP", 0x08, 0x06),
		op("Ethernet, IPv4, their lengths", 0x00, 0x01, 0x08, 0x00, 6, 4),
		op("request", 0x00, 0x01),
		op("from the NIC", mac...),
		op("which has no address yet", 0, 0, 0, 0),
		op("for whom", 0, 0, 0, 0, 0, 0),
		op("has this address", target...),
	}
}
