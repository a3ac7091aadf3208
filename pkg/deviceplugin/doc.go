// Package deviceplugin speaks with the kubelet of a node, over its Unix
// sockets: it offers pools of VFs to pods (device plugin API, v1beta1), and
// asks which pods have which devices (pod resources API, v1).
//
// What is offered follows the host without a restart. A VF that a pod has stays
// in the list: the kubelet knows who has it, and a list without it would only
// take the capacity away.
package deviceplugin
