// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"strings"
	"testing"
	"unicode"

	"github.com/medirecord/medirecord/internal/med"
)

func TestMask(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		field    med.Field
		in, want string
	}{
		{med.FieldSSN, "123-45-6789", "***-**-6789"},
		{med.FieldSSN, "000-00-0000", "***-**-0000"},
		{med.FieldSSN, "123456789", "***-**-****"},
		{med.FieldSSN, "", "***-**-****"},
		{med.FieldSSN, "123-45-678", "***-**-****"},
		{med.FieldSSN, "123-45-67890", "***-**-****"},
		{med.FieldSSN, "123-45-678x", "***-**-****"},
		{med.FieldSSN, "Alice Smith", "***-**-****"},
		{med.FieldSSN, "123-45-67é", "***-**-****"},
		{med.FieldDOB, "1985-06-15", "****-**-15"},
		{med.FieldDOB, "1985-06", "****-**-**"},
		{med.FieldDOB, "1985", "****-**-**"},
		{med.FieldDOB, "", "****-**-**"},
		{med.FieldDOB, "15.06.1985", "****-**-85"}, // its end, whatever it means there
		{med.FieldDOB, "1985-06-1x", "****-**-**"},
		{med.FieldDOB, "1985-06-15T00:00:00Z", "****-**-**"},
		{med.FieldName, "Alice Smith", "***"},
		{med.FieldDiagnosis, "", "***"},
		{"made_up", "value", "***"},
	} {
		if got := mask(tc.field, tc.in); got != tc.want {
			t.Errorf("%s of %q: got %q, want %q", tc.field, tc.in, got, tc.want)
		}
	}
}

// FuzzMask: a mask holds no more of its value than the last four digits of an
// SSN or the day of a date, and is recognised when it comes back.
func FuzzMask(f *testing.F) {
	for _, s := range []string{"123-45-6789", "1985-06-15", "1985-06", "", "***-**-6789", "\x00\xff", "Alice Smith", "१२३-४५-६७"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, plain string) {
		for field, most := range map[med.Field]int{med.FieldSSN: 4, med.FieldDOB: 2, med.FieldName: 0, med.FieldDiagnosis: 0} {
			m := mask(field, plain)
			told := strings.Trim(m, "*-")
			if len(told) > most || strings.ContainsFunc(told, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsDigit(r) }) {
				t.Errorf("the mask of a %s tells %q", field, told)
			}
			if !strings.HasSuffix(plain, told) {
				t.Errorf("the mask of a %s tells what is not its end", field)
			}
			if !IsMask(m) {
				t.Errorf("%q is not recognised as a mask", m)
			}
			if told != "" && m != mask(field, strings.Repeat("9", len(plain)-len(told))+told) {
				t.Errorf("the mask of a %s depends on what it hides", field)
			}
		}
	})
}

func TestIsMask(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]bool{
		"***": true, "***-**-6789": true, "***-**-****": true, "****-**-15": true, "****-**-**": true,
		"": false, "**": false, "****": false, "123-45-6789": false, "1985-06-15": false, "***-**-678": false, "***-45-6789": false, "Alice *** Smith": false,
	} {
		if got := IsMask(in); got != want {
			t.Errorf("%q: got %v, want %v", in, got, want)
		}
	}
}
