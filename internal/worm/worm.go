// SPDX-License-Identifier: Apache-2.0

// Package worm keeps objects in places where they are written once: a folder,
// or a bucket of an S3-compatible store with object lock. It never replaces,
// changes or removes what is there, and gives back what was put first.
package worm

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/medirecord/medirecord/internal/outbound"
)

// Sink is a write-once place.
type Sink interface {
	// Put keeps the data under the name. When it returns nil they are durable and
	// locked as far as the place can lock. The same data again are fine; other
	// data under a name that is taken are ErrExists, and what is there stays.
	Put(ctx context.Context, name string, data []byte) error
	// Get returns what was put first under the name, or ErrNotFound.
	Get(ctx context.Context, name string) ([]byte, error)
	// List returns the names that begin with the prefix, sorted.
	List(ctx context.Context, prefix string) ([]string, error)
	Close() error
}

// What a Sink reports, found with errors.Is.
var (
	ErrExists    = errors.New("there is something else under that name already, and it stays")
	ErrNotFound  = errors.New("there is nothing under that name")
	ErrNotLocked = errors.New("the bucket does not lock its objects: make it anew with object lock, which also turns on versions")
	ErrName      = errors.New("not a name for an object: want words of printable characters with slashes between")
)

// ExistsError is an ErrExists with what is there, for who would take it too.
type ExistsError struct{ There []byte }

func (*ExistsError) Error() string { return ErrExists.Error() }

// Is says that it is an ErrExists.
func (*ExistsError) Is(target error) bool { return target == ErrExists }

// maxObject is the largest object that is kept or read: tiles have 8 kB,
// exports of a month come as many files.
const maxObject = 1 << 30

// Config says how sinks are reached.
type Config struct {
	// Outbound says how far requests to a bucket may go.
	Outbound outbound.Config
	Now      func() time.Time
}

// Open opens a sink by its URL, reached as the strict zero Config says.
func Open(address string) (Sink, error) { return Config{Now: time.Now}.Open(address) }

// Open opens a sink by its URL:
//
//	file:///folder, which must be there
//	s3://bucket/prefix?endpoint=https://s3.example&region=eu-1&retain=2190d
//
// A bucket's objects are locked in compliance mode for the days of retain, by
// default 2190, six years. Its credentials come from where other programs look for
// them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the shared credentials
// file, or the machine's role. Errors do not quote the URL.
func (c Config) Open(address string) (Sink, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("a sink's URL does not read: want file:///folder or s3://bucket/prefix?endpoint=…")
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" || u.RawQuery != "" || !filepath.IsAbs(u.Path) {
			return nil, errors.New("a folder's URL must be file:/// and its whole path")
		}
		return openFolder(u.Path)
	case "s3":
		return c.openBucket(u)
	}
	return nil, fmt.Errorf("a sink's URL begins with file:/// or s3://, and not with %q", u.Scheme)
}

// checkName refuses names that mean something else somewhere: a path out of
// the folder, a hidden file, a name with a line end.
func checkName(name string) error {
	for part := range strings.SplitSeq(name, "/") {
		// One leading dot is ours: files that are being written.
		if part == "" || strings.HasPrefix(part, ".") || strings.ContainsRune(part, '\\') || len(part) > 200 ||
			strings.ContainsFunc(part, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsPrint(r) }) {
			return ErrName
		}
	}
	return nil
}
