// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

func indexKey(t testing.TB, fill byte) *IndexKey {
	t.Helper()
	k, err := NewIndexKey(practiceKey(t, PurposeIndex, fill))
	must(t, err)
	return k
}

func TestBlindIndex(t *testing.T) {
	t.Parallel()
	k := indexKey(t, 1)
	tag := func(t *testing.T, k *IndexKey, field, value string) [8]byte {
		t.Helper()
		got, err := k.Tag(field, value)
		must(t, err)
		return got
	}
	t.Run("equal values of a field in a practice have equal tags, and no others", func(t *testing.T) {
		t.Parallel()
		base := tag(t, k, "ssn", "123456789")
		if tag(t, k, "ssn", "123456789") != base || tag(t, indexKey(t, 1), "ssn", "123456789") != base {
			t.Error("equal values differ")
		}
		if tag(t, k, "ssn", "123456788") == base || tag(t, k, "mrn", "123456789") == base || tag(t, indexKey(t, 2), "ssn", "123456789") == base {
			t.Error("different values, fields or practices agree")
		}
	})
	t.Run("an empty value or an illegal field has none", func(t *testing.T) {
		t.Parallel()
		_, err := k.Tag("ssn", "")
		wantErr(t, err, ErrMisuse)
		_, err = k.Tag("s/n", "x")
		wantErr(t, err, ErrMisuse)
	})
	t.Run("a forgotten key has none", func(t *testing.T) {
		t.Parallel()
		gone := indexKey(t, 3)
		gone.Forget()
		_, err := gone.Tag("ssn", "x")
		wantErr(t, err, ErrForgotten)
		_, err = gone.Digest("d")
		wantErr(t, err, ErrForgotten)
	})
	t.Run("many at once agree", func(t *testing.T) {
		t.Parallel()
		fresh := indexKey(t, 1)
		var wg sync.WaitGroup
		for i := range 64 {
			field := fmt.Sprintf("f%d", i%4)
			want := tag(t, k, field, "x")
			wg.Go(func() {
				if got, err := fresh.Tag(field, "x"); got != want || err != nil {
					t.Errorf("%s: another tag, %v", field, err)
				}
			})
		}
		wg.Wait()
	})
}

func TestDigest(t *testing.T) {
	t.Parallel()
	k := indexKey(t, 1)
	of := func(domain string, parts ...string) [32]byte {
		var b [][]byte
		for _, p := range parts {
			b = append(b, []byte(p))
		}
		d, err := k.Digest(domain, b...)
		must(t, err)
		return d
	}
	if first, again := of("import", "a", "b"), of("import", "a", "b"); first != again {
		t.Error("equal parts differ")
	}
	for _, other := range [][32]byte{of("import", "ab"), of("import", "a", "b", ""), of("import", "b", "a"), of("export", "a", "b")} {
		if other == of("import", "a", "b") {
			t.Error("different parts or domains agree")
		}
	}
	one, err := k.NewDigest("file")
	must(t, err)
	two, err := k.NewDigest("file")
	must(t, err)
	for d, pieces := range map[*KeyedDigest][]string{one: {"streamed"}, two: {"strea", "", "med"}} {
		for _, p := range pieces {
			_, err := d.Write([]byte(p))
			must(t, err)
		}
	}
	if first, again := one.Sum(), one.Sum(); first != again || first != two.Sum() {
		t.Error("how bytes are cut into writes makes a difference")
	}
	_, err = k.NewDigest("")
	wantErr(t, err, ErrMisuse)
}

// normalCases is in the vectors too, for a second implementer.
var normalCases = []normalCase{
	{"ssn", "123-45-6789", "123456789"},
	{"ssn", " 123 45 6789 ", "123456789"},
	{"ssn", "１２３-45-6789", "123456789"},
	{"ssn", "", ""},
	{"ssn", "6789", ""},
	{"ssn", "***-**-6789", ""},
	{"ssn", "1234567890", ""},
	{"phone", "(555) 123-4567", "5551234567"},
	{"phone", "+1 555 123 4567", "5551234567"},
	{"phone", "tel:+1-555-123-4567", "5551234567"},
	{"phone", "555.123.4567 x89", "5551234567"},
	{"phone", "555.123.4567 ext. 89", "5551234567"},
	{"phone", "555-123-4567;ext=89", "5551234567"},
	{"phone", "0044 20 7946 0000", "442079460000"},
	{"phone", "+44 20 7946 0000", "442079460000"},
	{"phone", "911", ""},
	{"phone", "none", ""},
	{"phone", "1234567890123456", ""},
	{"email", " Alice.Smith@Example.ORG ", "alice.smith@example.org"},
	{"email", "ALICE+x@example.org", "alice+x@example.org"},
	{"email", "alice", ""},
	{"email", "@example.org", ""},
	{"email", "alice@", ""},
	{"email", "a@b@c", ""},
	{"mrn", "MRN-00 123/a", "mrn00123a"},
	{"mrn", "--", ""},
	{"mrn", "\xff", ""},
	{"member_id", "W12 345-678", "w12345678"},
}

var familyCases = []familyCase{
	{"Smith", "1985-06-15", "smith|1985-06-15"},
	{"SMITH ", " 1985-06-15", "smith|1985-06-15"},
	{"O'Brien-Müller", "1985-06-15", "obrienmuller|1985-06-15"},
	{"OʼBrien Mu\u0308ller", "1985-06-15", "obrienmuller|1985-06-15"},
	{"Weiß", "1985-06-15", "weiss|1985-06-15"},
	{"Wałęsa", "1985-06-15", "walesa|1985-06-15"},
	{"SØRENSEN", "1985-06-15", "sorensen|1985-06-15"},
	{"Þórsdóttir", "1985-06-15", "thorsdottir|1985-06-15"},
	{"İnönü", "1985-06-15", "inonu|1985-06-15"},
	{"Nguyễn", "1985-06-15", "nguyen|1985-06-15"},
	{"李", "1985-06-15", "李|1985-06-15"},
	{"Ｓｍｉｔｈ", "1985-06-15", "smith|1985-06-15"},
	{"Smith945", "1985-06-15", "smith945|1985-06-15"},
	{"Smith", "1985-06", ""},
	{"Smith", "1985", ""},
	{"Smith", "1985-02-30", ""},
	{"Smith", "", ""},
	{"", "1985-06-15", ""},
	{"- '", "1985-06-15", ""},
}

type (
	normalCase struct{ Kind, In, Want string }
	familyCase struct{ Family, DOB, Want string }
)

var normals = map[string]func(string) (string, bool){
	"ssn": NormalSSN, "phone": NormalPhone, "email": NormalEmail, "mrn": NormalMRN, "member_id": NormalMemberID,
}

func TestNormals(t *testing.T) {
	t.Parallel()
	for _, tc := range normalCases {
		got, ok := normals[tc.Kind](tc.In)
		if ok != (tc.Want != "") || ok && got != tc.Want {
			t.Errorf("%s %q: got %q, %t, want %q", tc.Kind, tc.In, got, ok, tc.Want)
		}
	}
	for _, tc := range familyCases {
		got, ok := NormalFamilyDOB(tc.Family, tc.DOB)
		if ok != (tc.Want != "") || ok && got != tc.Want {
			t.Errorf("%q %q: got %q, %t, want %q", tc.Family, tc.DOB, got, ok, tc.Want)
		}
	}
}

func FuzzNormal(f *testing.F) {
	for _, tc := range normalCases {
		f.Add(tc.In)
	}
	for _, tc := range familyCases {
		f.Add(tc.Family)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, normal := range normals {
			once, ok := normal(s)
			if !ok {
				continue
			}
			if once == "" {
				t.Errorf("%s: an empty value is fit to index", name)
			}
			if name == "phone" { // 1 and 00 are taken off once: 0044… is 44…, but so would 44… be
				continue
			}
			if twice, ok := normal(once); !ok || twice != once {
				t.Errorf("%s: the normal form of %q is not normal: %q, %t", name, once, twice, ok)
			}
		}
		upper, okUpper := NormalMRN(strings.ToUpper(s))
		lower, okLower := NormalMRN(strings.ToLower(s))
		if isASCII(s) && (upper != lower || okUpper != okLower) {
			t.Errorf("case makes a difference: %q, %q", upper, lower)
		}
	})
}
