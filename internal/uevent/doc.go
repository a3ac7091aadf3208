// Package uevent receives the kernel's own announcements of devices and modules
// that come and go (Linux Documentation/ABI/testing/sysfs-uevent).
package uevent
