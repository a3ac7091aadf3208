#!/bin/sh
# Installs the Debian packages that the named groups need, and nothing that is
# there already: test/install.sh GROUP...
#   libvirt     libvirtd, QEMU and virsh; kvm-ok; Prometheus, promtool
#               and Debian's exporter of libvirt
#   vm          QEMU and the tools that make the node VM's image
#   runtime     containerd and the CNI plugins
#   e2e         what the nodes of a cluster need, a VM, and Prometheus
#   bpf         the compiler of the BPF programs
# QEMU 8 or later (igb, an SR-IOV NIC) comes from Debian's backports; on
# Debian 12 they are added beside the machine's own Debian source.
set -eu

say() { printf '>> %s\n' "$*" >&2; }

packages=
for group in "$@"; do
	case $group in
	libvirt) packages="$packages qemu-system-x86 qemu-utils libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients cpu-checker prometheus prometheus-libvirt-exporter iproute2" ;;
	vm) packages="$packages qemu-system-x86 busybox-static kmod iproute2 zstd xz-utils" ;;
	runtime) packages="$packages containerd containernetworking-plugins" ;;
	e2e) packages="$packages containerd containernetworking-plugins iptables iproute2 prometheus qemu-system-x86" ;;
	bpf) packages="$packages clang llvm libbpf-dev linux-libc-dev" ;;
	*) say "unknown group $group"; exit 2 ;;
	esac
done

missing() {
	for package in $packages; do
		dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
	done | sort -u
}

# Debian's own source of this machine: "URI keyring", from deb822 or one-line files.
debian_source() {
	awk 'tolower($1) == "uris:" { uri = $2 }
	     tolower($1) == "suites:" { suites = $0 }
	     tolower($1) == "signed-by:" { key = $2 }
	     NF == 0 || eof { uri = "" }
	     uri && suites ~ / bookworm( |$)/ && key { print uri, key; exit }' /etc/apt/sources.list.d/*.sources 2>/dev/null | grep . && return
	awk '$1 == "deb" { key = ""; for (i = 2; i < NF; i++) if ($i ~ /signed-by=/) { key = $i; gsub(/.*signed-by=|\]/, "", key) }
	     i = ($2 ~ /^\[/) ? 3 : 2; while ($(i-1) !~ /\]$/ && i > 2) i++
	     if ($(i+1) == "bookworm") { print $i, key; exit } }' /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null
}

backports() {
	. /etc/os-release
	[ "${VERSION_CODENAME:-}" = bookworm ] || return 0
	apt-cache policy 2>/dev/null | grep -q bookworm-backports && return 0
	set -- $(debian_source)
	[ $# -ge 1 ] || { say "no Debian source found under /etc/apt to derive bookworm-backports from"; exit 1; }
	say "adding Debian's backports as /etc/apt/sources.list.d/nodeagent-backports.sources"
	printf 'Types: deb\nURIs: %s\nSuites: bookworm-backports\nComponents: main\n%s' "$1" "${2:+Signed-By: $2
}" >/etc/apt/sources.list.d/nodeagent-backports.sources
}

want=$(missing)
[ -n "$want" ] || exit 0
[ "$(id -u)" = 0 ] || { say "root is needed to install:" $want; exit 1; }
backports
say "apt-get update"
apt-get update -qq
suite=
apt-cache policy | grep -q bookworm-backports && suite="-t bookworm-backports"
say "apt-get install" $want
# A service that the packages would start is not wanted: the beds start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod +x $policy
	trap 'rm -f $policy' EXIT
fi
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $suite $want >/dev/null
