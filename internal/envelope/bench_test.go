// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"fmt"
	"testing"
)

func twelveFields() map[string][]byte {
	fields := map[string][]byte{HeaderField: []byte(`{"sensitivity":"normal","source":"fhir"}`)}
	for i := range 11 {
		fields[fmt.Sprintf("field_%02d", i)] = fmt.Appendf(nil, `{"value":"some short text %d"}`, i*1000)
	}
	return fields
}

// BenchmarkReadRow is the crypto of one ReadPatient: parse, check, open all.
func BenchmarkReadRow(b *testing.B) {
	k := patientKey(b, 1, aliceDEK)
	packed, err := k.SealRow(aliceRow, 1, twelveFields())
	must(b, err)
	b.ReportAllocs()
	for b.Loop() {
		row, err := ParseRow(packed)
		must(b, err)
		must(b, k.Check(aliceRow, row))
		for i := range row.fields {
			if _, err := k.openField(&aliceRow, row, &row.fields[i]); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkReadRowByName does the same by the names a view lists.
func BenchmarkReadRowByName(b *testing.B) {
	k := patientKey(b, 1, aliceDEK)
	packed, err := k.SealRow(aliceRow, 1, twelveFields())
	must(b, err)
	row, err := ParseRow(packed)
	must(b, err)
	names := row.Fields()
	b.ReportAllocs()
	for b.Loop() {
		row, err := ParseRow(packed)
		must(b, err)
		for _, name := range names {
			if _, err := k.OpenField(aliceRow, row, name); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkSealRow(b *testing.B) {
	k := patientKey(b, 1, aliceDEK)
	fields := twelveFields()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.SealRow(aliceRow, 1, fields); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUpdateRow(b *testing.B) {
	k := patientKey(b, 1, aliceDEK)
	packed, err := k.SealRow(aliceRow, 1, twelveFields())
	must(b, err)
	change := map[string][]byte{"field_03": []byte("new")}
	b.ReportAllocs()
	for b.Loop() {
		row, err := ParseRow(packed)
		must(b, err)
		if _, err := k.UpdateRow(aliceRow, row, 2, change); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewPatientKey(b *testing.B) {
	dek := fixedKey(1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewPatientKey(dek, aliceDEK); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreatePatientKey(b *testing.B) {
	keeper, err := InitFileKeeper(b.TempDir() + "/keys")
	must(b, err)
	for epoch := range int64(50) {
		must(b, keeper.CreateKey(b.Context(), EpochKey(epoch)))
	}
	kek, err := NewKEK(practiceKey(b, PurposeKEK, 1))
	must(b, err)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, _, err := CreatePatientKey(b.Context(), keeper, 1, kek, aliceDEK); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkTag(b *testing.B) {
	k := indexKey(b, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Tag("ssn", "123456789"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompress(b *testing.B) {
	plain := observation(7)
	b.SetBytes(int64(len(plain)))
	b.ReportAllocs()
	for b.Loop() {
		Compress(plain)
	}
}

func BenchmarkDecompress(b *testing.B) {
	plain := observation(7)
	packed := Compress(plain)
	b.SetBytes(int64(len(plain)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decompress(packed); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNormalFamilyDOB(b *testing.B) {
	for _, name := range []string{"Smith945", "Müller"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := NormalFamilyDOB(name, "1985-06-15"); !ok {
					b.Fatal("not normal")
				}
			}
		})
	}
}
