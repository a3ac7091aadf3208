package kvmcheck

// CPUIDFeatureName is for the tests that need package hosttest, which imports this one.
func CPUIDFeatureName(leaf, subleaf uint32, register string, bit int) string {
	return cpuidFeatureName(leaf, subleaf, register, bit)
}
