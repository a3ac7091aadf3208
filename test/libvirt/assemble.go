package libvirt

import (
	"encoding/binary"
	"fmt"
)

const (
	sectorSize = 512
	// origin is where the BIOS loads a boot sector.
	origin = 0x7C00
)

// instruction is one line of a real-mode program: its text for the reader, its
// machine code, and the label that its last two bytes stand for, if any.
type instruction struct {
	text   string
	code   []byte
	label  string
	target target
}

// target says how an instruction uses its label.
type target int

const (
	none     target = iota
	here            // the label is defined here
	relative        // the distance from the next instruction
	absolute        // the address
)

// op is an instruction, or data, with nothing left to find out. Numbers in the
// text are hexadecimal from 10 up, as debuggers print them.
func op(text string, code ...byte) instruction { return instruction{text: text, code: code} }

// at defines a label.
func at(label string) instruction { return instruction{label: label, target: here} }

// near is a jump to a label, anywhere in the sector.
func near(text, label string, code ...byte) instruction {
	return instruction{text: text, code: code, label: label, target: relative}
}

// address is an instruction whose last operand is the address of a label.
func address(text, label string, code ...byte) instruction {
	return instruction{text: text, code: code, label: label, target: absolute}
}

func (i instruction) size() int {
	if i.target == relative || i.target == absolute {
		return len(i.code) + 2
	}
	return len(i.code)
}

// assemble makes a boot sector of the program.
func assemble(program []instruction) ([]byte, error) {
	labels := map[string]int{}
	size := 0
	for _, line := range program {
		if line.target == here {
			labels[line.label] = size
		}
		size += line.size()
	}
	if size > sectorSize-2 {
		return nil, fmt.Errorf("assemble a boot sector: %d bytes of code", size)
	}
	sector := make([]byte, 0, sectorSize)
	for _, line := range program {
		sector = append(sector, line.code...)
		place, known := labels[line.label]
		if line.target != none && !known {
			return nil, fmt.Errorf("assemble %q: no label %q", line.text, line.label)
		}
		switch line.target {
		case relative:
			sector = binary.LittleEndian.AppendUint16(sector, uint16(place-len(sector)-2))
		case absolute:
			sector = binary.LittleEndian.AppendUint16(sector, uint16(origin+place))
		}
	}
	sector = append(sector, make([]byte, sectorSize-len(sector))...)
	sector[510], sector[511] = 0x55, 0xAA
	return sector, nil
}
