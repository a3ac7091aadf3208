package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// AddToScheme makes the types known to a client.
func AddToScheme(scheme *runtime.Scheme) error {
	version := schema.FromAPIVersionAndKind(APIVersion, "").GroupVersion()
	scheme.AddKnownTypes(version, &HostNetwork{}, &HostNetworkList{}, &NodeVirtualization{}, &NodeVirtualizationList{})
	metav1.AddToGroupVersion(scheme, version)
	return nil
}
