// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// spool sorts byte strings into parts that are small enough to be held one at a
// time, whatever the size of all. It keeps what fits in memory; the rest goes
// to a file that has no name and is sealed under a key that only this process
// ever had, so that nothing readable stays on disk, not even after a crash.
type spool struct {
	parts []part
	chunk int // bytes a part keeps in memory
	dir   string
	file  *os.File
	size  int64
	seal  cipher.AEAD
	count uint64 // chunks sealed: the nonce
}

type part struct {
	buf    []byte
	chunks []chunk
	bytes  int64
}

type chunk struct {
	at    int64
	size  int
	nonce uint64
}

const (
	partBytes   = 8 << 20  // aimed at
	spoolMemory = 32 << 20 // for all parts together
)

// newSpool expects about that many bytes; it takes any number.
func newSpool(dir string, expect int64) *spool {
	n := int(min(max(expect/partBytes, 1), 4096))
	return &spool{parts: make([]part, n), chunk: max(spoolMemory/n, 8<<10), dir: dir}
}

func (s *spool) add(i int, item []byte) error {
	p := &s.parts[i]
	p.buf = binary.AppendUvarint(p.buf, uint64(len(item)))
	p.buf = append(p.buf, item...)
	p.bytes += int64(len(item))
	if len(p.buf) < s.chunk {
		return nil
	}
	return s.flush(i)
}

func (s *spool) flush(i int) error {
	if err := s.open(); err != nil {
		return err
	}
	p := &s.parts[i]
	c := chunk{at: s.size, nonce: s.count}
	s.count++
	sealed := s.seal.Seal(nil, nonce(c.nonce), p.buf, binary.AppendUvarint(nil, uint64(i)))
	c.size = len(sealed)
	if _, err := s.file.WriteAt(sealed, s.size); err != nil {
		return fmt.Errorf("writing the spool: %w", err)
	}
	s.size += int64(c.size)
	p.chunks = append(p.chunks, c)
	clear(p.buf)
	p.buf = p.buf[:0]
	return nil
}

func (s *spool) open() error {
	if s.file != nil {
		return nil
	}
	var key [32]byte
	_, _ = rand.Read(key[:]) // crypto/rand.Read does not fail (Go 1.24)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return fmt.Errorf("sealing the spool: %w", err)
	}
	if s.seal, err = cipher.NewGCM(block); err != nil {
		return fmt.Errorf("sealing the spool: %w", err)
	}
	f, err := os.CreateTemp(s.dir, "medirecord-*")
	if err != nil {
		return fmt.Errorf("opening the spool: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil { // the open file stays usable
		return errors.Join(fmt.Errorf("unlinking the spool: %w", err), f.Close())
	}
	s.file = f
	return nil
}

func nonce(n uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 4, 12), n) }

// items returns what was added to a part, in order. The part is empty after it.
func (s *spool) items(i int) ([][]byte, error) {
	p := &s.parts[i]
	var out [][]byte
	for _, c := range p.chunks {
		sealed := make([]byte, c.size)
		if _, err := s.file.ReadAt(sealed, c.at); err != nil {
			return nil, fmt.Errorf("reading the spool: %w", err)
		}
		plain, err := s.seal.Open(sealed[:0], nonce(c.nonce), sealed, binary.AppendUvarint(nil, uint64(i)))
		if err != nil {
			return nil, fmt.Errorf("reading the spool: %w", err)
		}
		if out, err = split(out, plain); err != nil {
			return nil, err
		}
	}
	out, err := split(out, p.buf)
	*p = part{}
	return out, err
}

func split(out [][]byte, b []byte) ([][]byte, error) {
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return nil, errors.New("reading the spool: an item is cut off")
		}
		out = append(out, b[n:n+int(size)])
		b = b[n+int(size):]
	}
	return out, nil
}

func (s *spool) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
