// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// observation is like a FHIR source: JSON with its repetitions.
func observation(n int) []byte {
	return fmt.Appendf(nil, `{"resourceType":"Observation","id":"o-%d","status":"final","category":[{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/observation-category","code":"vital-signs","display":"Vital signs"}]}],"code":{"coding":[{"system":"http://loinc.org","code":"8302-2","display":"Body Height"}],"text":"Body Height"},"subject":{"reference":"Patient/p-%d"},"encounter":{"reference":"Encounter/e-%d"},"effectiveDateTime":"2019-05-0%dT09:08:42-04:00","issued":"2019-05-01T09:08:42.812-04:00","valueQuantity":{"value":%d.%d,"unit":"cm","system":"http://unitsofmeasure.org","code":"cm"}}`,
		n, n*7, n*13, n%9+1, 120+n%80, n%10)
}

func TestCompress(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 5000)
	_, _ = rand.Read(noise)
	for name, tc := range map[string]struct {
		plain []byte
		codec byte
	}{
		"nothing":                     {[]byte{}, codecPlain},
		"a short value":               {[]byte("123-45-6789"), codecPlain},
		"a source":                    {observation(1), codecZstd},
		"a long text":                 {bytes.Repeat(observation(2), 50), codecZstd},
		"noise":                       {noise, codecPlain},
		"what would look like a bomb": {make([]byte, 1<<20), codecPlain},
		"the largest field":           {largest(t), codecZstd},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := Compress(tc.plain)
			if b[0] != tc.codec {
				t.Errorf("got codec %d, want %d", b[0], tc.codec)
			}
			if len(b) > len(tc.plain)+1 {
				t.Errorf("%d bytes became %d", len(tc.plain), len(b))
			}
			got, err := Decompress(b)
			must(t, err)
			if got == nil || !bytes.Equal(got, tc.plain) {
				t.Error("something else came back")
			}
		})
	}
	t.Run("a source becomes smaller", func(t *testing.T) {
		t.Parallel()
		plain := observation(3)
		if n := len(Compress(plain)); n > len(plain)*3/4 {
			t.Errorf("%d bytes became %d", len(plain), n)
		}
	})
	t.Run("many at once", func(t *testing.T) {
		t.Parallel()
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for n := range 50 {
					plain := observation(i*100 + n)
					got, err := Decompress(Compress(plain))
					if err != nil || !bytes.Equal(got, plain) {
						t.Errorf("%d: another value came back, %v", i, err)
					}
				}
			})
		}
		wg.Wait()
	})
}

// largest is a field of the largest size that compresses, but not too well.
func largest(t *testing.T) []byte {
	t.Helper()
	b := make([]byte, MaxField)
	half := make([]byte, MaxField/16)
	_, _ = rand.Read(half)
	copy(b, base64.StdEncoding.EncodeToString(half))
	return b
}

func TestDecompressRefuses(t *testing.T) {
	t.Parallel()
	framed := func(size int, frame []byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{codecZstd}, uint32(size)), frame...)
	}
	enc, err := zstd.NewWriter(nil)
	must(t, err)
	bomb := enc.EncodeAll(make([]byte, 64<<20), nil)
	text := enc.EncodeAll([]byte(strings.Repeat("text ", 100)), nil)
	for name, tc := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":                     {nil, ErrMalformed},
		"an unknown codec":            {[]byte{2, 0}, ErrMalformed},
		"a cut head":                  {[]byte{codecZstd, 0, 0}, ErrMalformed},
		"a cut frame":                 {framed(500, text[:len(text)-1]), ErrMalformed},
		"a size too small":            {framed(499, text), ErrMalformed},
		"a size too large":            {framed(501, text), ErrMalformed},
		"a bomb that says its size":   {framed(64<<20, bomb), ErrTooLarge},
		"a bomb that hides its size":  {framed(1000, bomb), ErrMalformed},
		"a ratio above a hundredfold": {framed(len(bomb)*200, bomb), ErrTooLarge},
		"a size of 4 GiB":             {framed(1<<32-1, text), ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Decompress(tc.b)
			wantErr(t, err, tc.want)
		})
	}
}

func FuzzDecompress(f *testing.F) {
	f.Add(Compress(observation(1)))
	f.Add(Compress([]byte("short")))
	f.Add([]byte{codecZstd, 0, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		plain, err := Decompress(b)
		if err != nil {
			return
		}
		if len(plain) > MaxField && b[0] != codecPlain || len(plain) > maxRatio*len(b) {
			t.Errorf("%d bytes became %d", len(b), len(plain))
		}
		again, err := Decompress(Compress(plain))
		if err != nil || !bytes.Equal(again, plain) {
			t.Errorf("does not come back: %v", err)
		}
	})
}
