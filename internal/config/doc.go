// Package config turns bytes into a validated configuration. It does no I/O.
//
// Unknown fields and bad values are errors that name the line and the path.
package config
