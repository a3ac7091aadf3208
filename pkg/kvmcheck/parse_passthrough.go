package kvmcheck

import (
	"fmt"
	"strconv"
	"strings"
)

// remapping says what the name of an interrupt chip shows: Ready when the
// interrupts of devices are checked, NotReady when they are not, and Unknown
// for a chip that says nothing about it.
func remapping(chip string) Status {
	switch {
	case strings.HasPrefix(chip, "IR-"), strings.HasPrefix(chip, "ITS-"):
		return Ready // x86; Arm's GICv3
	case chip == "IO-APIC", chip == "PCI-MSI", strings.HasPrefix(chip, "PCI-MSI-"), strings.HasPrefix(chip, "PCI-MSIX-"):
		return NotReady // x86; since Linux 6.2 with the device's address
	default:
		return Unknown
	}
}

// parseRemappingCapability reads the extended capability register of an Intel
// IOMMU, in hexadecimal: bit 3 is interrupt remapping (VT-d specification,
// ECAP_REG).
func parseRemappingCapability(text string) (bool, error) {
	register, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		return false, fmt.Errorf("%.20q is not a hexadecimal register", text)
	}
	return register&(1<<3) != 0, nil
}
