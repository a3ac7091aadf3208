package kvmcheck

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"
)

// What the survey asks /dev/kvm (Linux Documentation/virt/kvm/api.rst).
const (
	kvmGetSupportedCPUID      = 0xc008ae05
	kvmGetMSRFeatureIndexList = 0xc004ae0a
	kvmGetMSRs                = 0xc008ae88
	kvmGetTSCKHz              = 0xaea3
)

// SurveyKVM opens /dev/kvm, and a VM where that knows more, and asks for
// capabilities, CPUID, feature MSRs and the frequency of the guest TSC.
func (d hostDevices) SurveyKVM() Survey {
	kvm, node := d.open(kvmPath)
	if kvm == nil {
		return unaskedSurvey(node)
	}
	defer kvm.Close() //nolint:errcheck // nothing was written
	survey := Survey{Node: node, CPUID: supportedCPUID(kvm), MSRs: featureMSRs(kvm)}
	vm, err := createVM(kvm)
	if err != nil {
		err = fmt.Errorf("KVM_CREATE_VM: %w", err)
		survey.Capabilities = unknown[[]Capability](kvmPath, err)
		survey.TSCKHz = unknown[uint64](kvmPath, err)
		return survey
	}
	defer vm.Close() //nolint:errcheck // the VM ends with its descriptor
	survey.Capabilities = capabilities(kvm, vm)
	survey.TSCKHz = tscKHz(vm)
	return survey
}

// capabilities asks the VM where it can be asked: some answers depend on it.
func capabilities(kvm, vm *os.File) Reading[[]Capability] {
	asked, source := kvm, kvmPath
	if value, err := ioctl(kvm, kvmCheckExtension, capCheckExtensionVM); err == nil && value > 0 {
		asked, source = vm, kvmPath+" (a VM)"
	}
	all, err := surveyCapabilities(func(number int) (int, error) {
		return ioctl(asked, kvmCheckExtension, uintptr(number))
	})
	return reading(source, all, err)
}

// x86Only is the answer of another CPU: KVM describes those by registers.
func x86Only[T any](what string) (Reading[T], bool) {
	if runtime.GOARCH == "amd64" {
		return Reading[T]{}, false
	}
	return unknown[T](kvmPath, fmt.Errorf("%s: not on %s", what, runtime.GOARCH)), true
}

func supportedCPUID(kvm *os.File) Reading[[]CPUID] {
	const call = "KVM_GET_SUPPORTED_CPUID"
	if answer, other := x86Only[[]CPUID](call); other {
		return answer
	}
	data := make([]byte, cpuidHeader+maxCPUID*cpuidEntry)
	binary.NativeEndian.PutUint32(data, maxCPUID)
	if _, err := ioctlPtr(kvm, kvmGetSupportedCPUID, unsafe.Pointer(&data[0])); err != nil {
		return unknown[[]CPUID](kvmPath, fmt.Errorf("%s: %w", call, err))
	}
	leaves, err := parseCPUID(data)
	return reading(kvmPath+": "+call, leaves, err)
}

// featureMSRs lists the MSRs by which KVM describes features, and reads each.
func featureMSRs(kvm *os.File) Reading[[]MSR] {
	const call = "KVM_GET_MSR_FEATURE_INDEX_LIST"
	if answer, other := x86Only[[]MSR](call); other {
		return answer
	}
	switch value, err := ioctl(kvm, kvmCheckExtension, capGetMSRFeatures); {
	case err != nil:
		return unknown[[]MSR](kvmPath, fmt.Errorf("KVM_CHECK_EXTENSION: %w", err))
	case value == 0: // before Linux 4.17
		return unknown[[]MSR](kvmPath, errors.New("this kernel does not describe features by MSRs"))
	}
	list := make([]byte, (1+maxMSRs)*msrListEntry)
	binary.NativeEndian.PutUint32(list, maxMSRs)
	if _, err := ioctlPtr(kvm, kvmGetMSRFeatureIndexList, unsafe.Pointer(&list[0])); err != nil {
		return unknown[[]MSR](kvmPath, fmt.Errorf("%s: %w", call, err))
	}
	indices, err := parseMSRList(list)
	if err != nil {
		return unknown[[]MSR](kvmPath, err)
	}
	msrs := make([]MSR, 0, len(indices))
	for _, index := range indices {
		data := make([]byte, msrsHeader+msrEntry)
		binary.NativeEndian.PutUint32(data, 1)
		binary.NativeEndian.PutUint32(data[msrsHeader:], index)
		read, err := ioctlPtr(kvm, kvmGetMSRs, unsafe.Pointer(&data[0]))
		if err != nil {
			return unknown[[]MSR](kvmPath, fmt.Errorf("KVM_GET_MSRS %#x: %w", index, err))
		}
		if read == 1 { // KVM lists some that this CPU has not
			msrs = append(msrs, MSR{Index: index, Value: binary.NativeEndian.Uint64(data[msrsHeader+8:])})
		}
	}
	return known(kvmPath+": "+call, msrs)
}

// tscKHz asks a new vCPU, which every kernel can.
func tscKHz(vm *os.File) Reading[uint64] {
	const call = "KVM_GET_TSC_KHZ"
	if answer, other := x86Only[uint64](call); other {
		return answer
	}
	fd, err := ioctl(vm, kvmCreateVCPU, 0)
	if err != nil {
		return unknown[uint64](kvmPath, fmt.Errorf("KVM_CREATE_VCPU: %w", err))
	}
	vcpu := os.NewFile(uintptr(fd), "kvm-vcpu")
	defer vcpu.Close() //nolint:errcheck // the vCPU ends with its descriptor
	khz, err := ioctl(vcpu, kvmGetTSCKHz, 0)
	if err != nil {
		return unknown[uint64](kvmPath, fmt.Errorf("%s: %w", call, err))
	}
	return known(kvmPath+": "+call, uint64(khz))
}
