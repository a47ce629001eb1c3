// SPDX-License-Identifier: Apache-2.0

package med

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Sexes are FHIR's administrative genders.
var Sexes = []string{"male", "female", "other", "unknown"}

// Longest texts of a patient, in characters.
const (
	maxShort = 64   // numbers and codes
	maxLine  = 200  // a name, a line of an address
	maxText  = 4000 // a diagnosis line
	maxParts = 8    // given names, lines of an address
)

var (
	ssnShape  = regexp.MustCompile(`^[0-9]{3}-[0-9]{2}-[0-9]{4}$`)
	dateShape = regexp.MustCompile(`^[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?$`)
)

// Check says what is wrong with one field of the patient at this moment, with a
// pointer into the JSON of a patient and never with the value. A field without a
// value is fine.
func (p *Patient) Check(f Field, now time.Time) []FieldError {
	c := checker{at: "/" + string(f)}
	switch f {
	case FieldMRN:
		c.text("", p.MRN, maxShort)
	case FieldName:
		c.name(&p.Name)
	case FieldSSN:
		c.shape(p.SSN == "" || ssnShape.MatchString(p.SSN.Reveal()), "three, two and four digits: ddd-dd-dddd")
	case FieldDOB:
		c.shape(p.DOB == "" || isDate(p.DOB), "YYYY, YYYY-MM or YYYY-MM-DD")
		c.shape(!isAhead(p.DOB, now), "not in the future")
	case FieldSex:
		c.shape(p.Sex == "" || slices.Contains(Sexes, p.Sex.Reveal()), "one of male, female, other, unknown")
	case FieldAddress:
		c.texts("/line", p.Address.Line)
		c.text("/city", p.Address.City, maxLine)
		c.text("/state", p.Address.State, maxShort)
		c.text("/postal_code", p.Address.PostalCode, maxShort)
		c.text("/country", p.Address.Country, maxShort)
	case FieldPhone:
		c.text("", p.Phone, maxShort)
	case FieldEmail:
		c.text("", p.Email, maxLine)
		local, domain, ok := strings.Cut(p.Email.Reveal(), "@")
		c.shape(p.Email == "" || ok && local != "" && domain != "" && !strings.ContainsAny(p.Email.Reveal(), " \t\r\n"), "an address with one @ and no spaces")
	case FieldInsurance:
		c.text("/payer", p.Insurance.Payer, maxLine)
		c.text("/member_id", p.Insurance.MemberID, maxShort)
	case FieldDiagnosis:
		c.text("", p.Diagnosis, maxText)
	case FieldDeceasedAt:
		_, err := time.Parse(time.RFC3339, p.DeceasedAt.Reveal())
		c.shape(p.DeceasedAt == "" || p.DeceasedAt == "true" || err == nil || isDate(p.DeceasedAt), "a date, a time with its zone, or true")
		c.shape(!isAhead(p.DeceasedAt, now), "not in the future")
	case FieldSensitivity:
		c.shape(p.Sensitivity == "" || p.Sensitivity == PHI(SensitivityNormal) || p.Sensitivity == PHI(SensitivityRestricted), "one of normal, restricted")
	default: // of a record
	}
	return c.wrong
}

// checker gathers what is wrong below one field.
type checker struct {
	at    string
	wrong []FieldError
}

func (c *checker) shape(good bool, want string) {
	if !good {
		c.wrong = append(c.wrong, FieldError{Pointer: c.at, Reason: want})
	}
}

func (c *checker) text(at string, p PHI, longest int) {
	switch s := p.Reveal(); {
	case utf8.RuneCountInString(s) > longest:
		c.wrong = append(c.wrong, FieldError{Pointer: c.at + at, Reason: "length at most " + strconv.Itoa(longest)})
	case s != "" && strings.TrimSpace(s) == "":
		c.wrong = append(c.wrong, FieldError{Pointer: c.at + at, Reason: "blank"})
	}
}

func (c *checker) texts(at string, ps []PHI) {
	if len(ps) > maxParts {
		c.wrong = append(c.wrong, FieldError{Pointer: c.at + at, Reason: "items at most " + strconv.Itoa(maxParts)})
		return
	}
	for i, p := range ps {
		c.text(at+"/"+strconv.Itoa(i), p, maxLine)
		if p == "" {
			c.wrong = append(c.wrong, FieldError{Pointer: c.at + at + "/" + strconv.Itoa(i), Reason: "blank"})
		}
	}
}

func (c *checker) name(n *Name) {
	c.text("/family", n.Family, maxLine)
	c.texts("/given", n.Given)
	c.text("/text", n.Text, 2*maxLine)
}

// Written is the name as a person would write it, when it does not say so itself.
func (n *Name) Written() PHI {
	if n.Text != "" {
		return n.Text
	}
	var words []string
	for _, g := range n.Given {
		words = append(words, g.Reveal())
	}
	if n.Family != "" {
		words = append(words, n.Family.Reveal())
	}
	return PHI(strings.Join(words, " "))
}

// isAhead reports whether a date, or the date of a time, has come nowhere on
// earth yet: the first zone is fourteen hours ahead of UTC.
func isAhead(p PHI, now time.Time) bool {
	s := p.Reveal()
	day := s[:min(len(s), len(time.DateOnly))]
	return dateShape.MatchString(day) && day > now.UTC().Add(14 * time.Hour).Format(time.DateOnly)[:len(day)]
}

// isDate reports whether the text is a date as precise as FHIR has them, and one
// that was.
func isDate(p PHI) bool {
	s := p.Reveal()
	if !dateShape.MatchString(s) {
		return false
	}
	_, err := time.Parse(time.DateOnly[:len(s)], s)
	return err == nil
}
