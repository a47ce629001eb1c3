// SPDX-License-Identifier: Apache-2.0

package fhir

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
)

// ErrRatio is what reading reports when gzip data unpacks to more than the
// ratio allows.
var ErrRatio = errors.New("gzip data unpacks to more than the allowed ratio")

// MaxRatio is how far gzip data may unpack (rules.md 8). Sample bundles reach 19.
const MaxRatio = 100

// ratioGrace may always be unpacked: the ratio of a small file says little.
const ratioGrace = 1 << 20

// Gunzip returns a reader of what r holds unpacked. It reports ErrRatio once
// more than 1 MiB and more than maxRatio times the bytes taken from r came out;
// a maxRatio of 0 means MaxRatio.
func Gunzip(r io.Reader, maxRatio int) io.Reader {
	if maxRatio <= 0 {
		maxRatio = MaxRatio
	}
	return &gunzip{in: &counter{r: r}, ratio: int64(maxRatio)}
}

type gunzip struct {
	in    *counter
	z     *gzip.Reader
	out   int64
	ratio int64
	err   error
}

func (g *gunzip) Read(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	if g.z == nil {
		z, err := gzip.NewReader(bufio.NewReaderSize(g.in, 32<<10))
		if err != nil {
			return 0, g.fail(err)
		}
		g.z = z
	}
	n, err := g.z.Read(p)
	g.out += int64(n)
	if g.out > ratioGrace && g.out > g.ratio*g.in.n {
		g.err = ErrRatio
		return 0, g.err
	}
	if err != nil {
		return n, g.fail(err)
	}
	return n, nil
}

func (g *gunzip) fail(err error) error {
	switch {
	case !errors.Is(err, io.EOF):
		g.err = fmt.Errorf("unpacking gzip: %w", err)
	case g.z == nil: // not even a header
		g.err = fmt.Errorf("unpacking gzip: %w", io.ErrUnexpectedEOF)
	default:
		g.err = io.EOF
	}
	return g.err
}

// counter counts the bytes taken from a reader.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
