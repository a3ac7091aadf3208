package node

import (
	"strconv"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// place holds the one object that a watch follows. It implements
// [cache.ReflectorStore].
type place[T metav1.Object] struct {
	changed func()

	mu     sync.Mutex
	object T
	there  bool
	synced bool // whether the API server has said if there is one
}

// get returns the object, whether there is one, and whether that is known.
func (p *place[T]) get() (object T, there, synced bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.object, p.there, p.synced
}

// put takes an object, unless it is older than what is known.
func (p *place[T]) put(object T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.there && p.object.GetUID() == object.GetUID() && version(object) < version(p.object) {
		return
	}
	p.object, p.there, p.synced = object, true, true
}

// version orders the states of one object.
func version(object metav1.Object) uint64 {
	number, err := strconv.ParseUint(object.GetResourceVersion(), 10, 64)
	if err != nil {
		return 0 // not comparable: the later one counts
	}
	return number
}

func (p *place[T]) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var none T
	p.object, p.there, p.synced = none, false, true
}

// Add implements [cache.ReflectorStore].
func (p *place[T]) Add(object any) error {
	if object, ok := object.(T); ok {
		p.put(object)
		p.changed()
	}
	return nil
}

// Update implements [cache.ReflectorStore].
func (p *place[T]) Update(object any) error { return p.Add(object) }

// Delete implements [cache.ReflectorStore].
func (p *place[T]) Delete(any) error {
	p.forget()
	p.changed()
	return nil
}

// Replace implements [cache.ReflectorStore].
func (p *place[T]) Replace(all []any, _ string) error {
	if len(all) == 0 {
		return p.Delete(nil)
	}
	return p.Add(all[0])
}

// Resync implements [cache.ReflectorStore].
func (p *place[T]) Resync() error { return nil }
