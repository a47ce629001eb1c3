// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/medirecord/medirecord/internal/fhir"
)

func (r *run) bundleJob(f file) job {
	return job{name: f.path, bytes: f.size, found: f.found, read: func() (*fhir.Bundle, [32]byte, error) {
		return readBundle(f.path, r.Limits)
	}}
}

// readBundle reads one bundle file. The hash is that of the JSON, so that a
// bundle is the same packed and unpacked.
func readBundle(path string, l fhir.Limits) (b *fhir.Bundle, hash [32]byte, err error) {
	in, err := openFile(path)
	if err != nil {
		return nil, hash, err
	}
	defer in.Close() //nolint:errcheck // read only
	h := sha256.New()
	b, err = fhir.ReadBundle(io.TeeReader(in, h), l)
	if err != nil {
		return nil, hash, err
	}
	h.Sum(hash[:0])
	return b, hash, nil
}

// openFile opens a file, unpacking it if its name ends in .gz.
func openFile(path string) (io.ReadCloser, error) {
	f, err := os.Open(path) // #nosec G304 -- the operator named it
	if err != nil {
		return nil, fmt.Errorf("opening a file to import: %w", err)
	}
	if !strings.HasSuffix(path, ".gz") {
		return f, nil
	}
	return struct {
		io.Reader
		io.Closer
	}{fhir.Gunzip(f, fhir.MaxRatio), f}, nil
}
