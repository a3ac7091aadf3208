package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// The resources that the agent writes, and what it follows.
const (
	nodes    = "nodes"
	objects  = "nodevirtualizations"
	policies = "hostnetworks"
)

// api speaks with the API server about Nodes and NodeVirtualizations, and asks
// it nothing about what else it knows.
type api struct {
	core, own *rest.RESTClient
	params    runtime.ParameterCodec
}

func newAPI(config *rest.Config) (*api, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	codecs := serializer.NewCodecFactory(scheme)
	made := &api{params: runtime.NewParameterCodec(scheme)}
	var errs [2]error
	made.core, errs[0] = clientFor(config, codecs, "/api", corev1.SchemeGroupVersion, runtime.ContentTypeProtobuf)
	made.own, errs[1] = clientFor(config, codecs, "/apis", schema.FromAPIVersionAndKind(v1alpha1.APIVersion, "").GroupVersion(), runtime.ContentTypeJSON)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return made, nil
}

func clientFor(config *rest.Config, codecs serializer.CodecFactory, path string, version schema.GroupVersion, content string) (*rest.RESTClient, error) {
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion, config.NegotiatedSerializer = path, &version, codecs.WithoutConversion()
	config.ContentType, config.AcceptContentTypes = content, content+","+runtime.ContentTypeJSON
	return rest.RESTClientFor(config)
}

// client is that of a resource.
func (a *api) client(resource string) *rest.RESTClient {
	if resource == nodes {
		return a.core
	}
	return a.own
}

// apply makes one write under the agent's name, without force, and returns the
// object as it is then.
func (a *api) apply(ctx context.Context, name string, w write) (runtime.Object, error) {
	body, err := json.Marshal(w.body)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", w.what, err)
	}
	resource, subresource := nodes, ""
	switch w.what {
	case writesConditions:
		subresource = "status"
	case writesObject:
		resource = objects
	case writesStatus:
		resource, subresource = objects, "status"
	}
	request := a.client(resource).Patch(types.ApplyPatchType).Resource(resource).Name(name).Param("fieldManager", Manager).Body(body)
	if subresource != "" {
		request = request.SubResource(subresource)
	}
	result, err := request.Do(ctx).Get()
	if err != nil {
		return nil, fmt.Errorf("write %s of %s: %w", w.what, name, err)
	}
	return result, nil
}

// report makes an event about the Node, where those of the kubelet are.
func (a *api) report(ctx context.Context, event *corev1.Event) error {
	return a.core.Post().Namespace(event.Namespace).Resource("events").Body(event).Do(ctx).Error()
}

// follow keeps a place up to date with one object until ctx ends. Errors go to
// failed, one after the other; nil when a request has succeeded.
func (a *api) follow(ctx context.Context, resource, name string, example runtime.Object, place cache.ReflectorStore, failed func(error)) {
	client := a.client(resource)
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, name)
	request := func(options metav1.ListOptions) *rest.Request {
		options.FieldSelector = selector.String()
		var timeout time.Duration
		if options.TimeoutSeconds != nil {
			timeout = time.Duration(*options.TimeoutSeconds) * time.Second
		}
		return client.Get().Resource(resource).VersionedParams(&options, a.params).Timeout(timeout)
	}
	lists := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			ctx, cancel := context.WithTimeout(ctx, answerTimeout)
			defer cancel()
			list, err := request(options).Do(ctx).Get()
			failed(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.Watch = true
			watching, err := answeredWatch(ctx, request(options).Watch)
			failed(err)
			return watching, err
		},
	}
	silent := klog.FromContext(ctx)
	reflector := cache.NewReflectorWithOptions(lists, example, place, cache.ReflectorOptions{Logger: &silent, Name: resource})
	reflector.RunWithContext(ctx)
}
