// Package packaging pins what renders and installs the agent's manifests:
// Helm and kustomize. It is a module of its own, so that none of their
// dependencies reaches the agent's.
package packaging
