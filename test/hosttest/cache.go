package hosttest

import (
	"fmt"
	"os"
	"path/filepath"
)

// CacheEnv names the folder for what is slow to make: control-plane binaries,
// the kernel image, tools. It defaults to nodeagent below the user's cache.
const CacheEnv = "NODEAGENT_CACHE"

// Cache returns the folder elem below the cache, and makes it.
func Cache(elem ...string) (string, error) {
	top := os.Getenv(CacheEnv)
	if top == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find a cache folder (set %s): %w", CacheEnv, err)
		}
		top = filepath.Join(user, "nodeagent")
	}
	dir := filepath.Join(append([]string{top}, elem...)...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache: %w", err)
	}
	return dir, nil
}
