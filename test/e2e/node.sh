set -eu
mount -t proc proc /proc
hostname "$NAME"
umount -R /sys 2>/dev/null || umount -l /sys
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
for controller in cpu cpuacct cpuset memory devices freezer blkio pids; do
	mkdir "/sys/fs/cgroup/$controller"
	mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"
done
mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/netns
for dir in var/lib/kubelet var/lib/containerd var/lib/nodeagent var/log/pods var/log/containers etc/cni etc/kubernetes opt/cni var/lib/cni; do
	mkdir -p "$DIR/$dir" "/$dir"
	mount --bind "$DIR/$dir" "/$dir"
done
mount --make-rshared /
mkdir -p /opt/cni/bin /etc/cni/net.d/multus.d
cp /usr/lib/cni/* /opt/cni/bin/
cp "$MULTUS" /opt/cni/bin/multus
cp "$MULTUS_KUBECONFIG" /etc/cni/net.d/multus.d/multus.kubeconfig
cp "$DIR/multus.conf" /etc/cni/net.d/00-multus.conf
# The cluster gives the links to this network namespace from outside.
until ip link show eth0 >/dev/null 2>&1 && ip link show ens1f0 >/dev/null 2>&1; do sleep 0.1; done
ip link set lo up
ip address add "$ADDRESS/24" dev eth0
ip link set eth0 up
ip link set ens1f0 up
ip route add default via "$GATEWAY"
echo 1 >/proc/sys/net/ipv4/ip_forward
# Instead of kube-proxy: the service of the API server.
for chain in PREROUTING OUTPUT; do
	iptables -t nat -A "$chain" -d "$SERVICE/32" -p tcp --dport 443 -j DNAT --to-destination "$GATEWAY:6443"
done
iptables -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE
containerd --config "$DIR/containerd.toml" --log-level info >"$LOG/$NAME-containerd.log" 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
for image in $IMAGES; do
	ctr -n k8s.io images import "$image"
done
ctr -n k8s.io images tag localhost/nodeagent:devel localhost/nodeagent:next
# Not exec: process 1 has to take the container shims that are left to it.
"$KUBELET" --config "$DIR/kubelet.yaml" --kubeconfig "$KUBECONFIG" --hostname-override "$NAME" --node-ip "$ADDRESS" >"$LOG/$NAME-kubelet.log" 2>&1
