// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// The codec byte that Compress puts before a value. Numbers are never reused.
const (
	codecPlain = 0 // the value as it is
	codecZstd  = 1 // its length (32 bits, big endian), then one zstd frame
)

const (
	codecHead = 1 + 4
	// minCompress is the length below which compression gains nothing.
	minCompress = 256
	// maxRatio bounds what a stored value may grow to: a bomb is refused before
	// memory is taken for it.
	maxRatio = 100
	// codecWindow keeps encoders small; most sources are shorter.
	codecWindow = 256 << 10
)

// Compress returns a codec byte and the value, compressed if that makes it
// smaller. It is for long values that nobody outside can mix with others'
// (a FHIR source): the length of a sealed value shows how well it compresses.
func Compress(plain []byte) []byte {
	if len(plain) < minCompress || len(plain) > MaxField {
		return append([]byte{codecPlain}, plain...)
	}
	enc, ok := encoders.Get().(*zstd.Encoder)
	if !ok {
		return append([]byte{codecPlain}, plain...)
	}
	defer encoders.Put(enc)
	b := make([]byte, codecHead, codecHead+len(plain)/2)
	b[0] = codecZstd
	binary.BigEndian.PutUint32(b[1:], uint32(len(plain))) //nolint:gosec // at most MaxField
	b = enc.EncodeAll(plain, b)
	// What Decompress would refuse as a bomb is kept as it is.
	if len(b) > len(plain) || len(plain) > maxRatio*len(b) {
		return append([]byte{codecPlain}, plain...)
	}
	return b
}

// Decompress returns what Compress was given. It reports ErrMalformed for
// anything else, and for what grows beyond MaxField or more than a hundredfold.
func Decompress(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, malformed("codec byte")
	}
	switch b[0] {
	case codecPlain:
		return append(make([]byte, 0, len(b)-1), b[1:]...), nil
	case codecZstd:
		return decompressZstd(b)
	default:
		return nil, malformed("unknown codec")
	}
}

func decompressZstd(b []byte) ([]byte, error) {
	if len(b) < codecHead {
		return nil, malformed("compressed value")
	}
	size := int(binary.BigEndian.Uint32(b[1:]))
	if size > MaxField || size > maxRatio*len(b) {
		return nil, fmt.Errorf("compressed value: %w", ErrTooLarge)
	}
	dec, ok := decoders.Get().(*zstd.Decoder)
	if !ok {
		return nil, malformed("compressed value")
	}
	defer decoders.Put(dec)
	// The capacity is the limit: see WithDecodeAllCapLimit below.
	plain, err := dec.DecodeAll(b[codecHead:], make([]byte, 0, size))
	if err != nil || len(plain) != size {
		return nil, malformed("compressed value")
	}
	return plain, nil
}

// Encoders and decoders are large and slow to make, and keep nothing of one
// value that shows in another's result.
var (
	encoders = sync.Pool{New: func() any {
		enc, err := zstd.NewWriter(nil,
			zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(codecWindow), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
		if err != nil {
			return nil // the options are constants; TestCompress shows that they are good
		}
		return enc
	}}
	decoders = sync.Pool{New: func() any {
		dec, err := zstd.NewReader(nil,
			zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(MaxField), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			return nil
		}
		return dec
	}}
)
