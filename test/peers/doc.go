// Package peers puts what virt-host-validate and kvm-ok, Debian's checks of a
// host for virtualization, say of a machine beside what nodeagent check says,
// on the machine itself and in the node VM. A test fails when ours is less
// informative on a check that they make.
package peers
