// SPDX-License-Identifier: Apache-2.0

package fhir

import (
	"strings"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

// Insurance returns the payer and member id that a patient's resources name:
// from a Coverage, else from the Coverage contained in an ExplanationOfBenefit,
// else from a Claim; an active one before others, then the newest. Resources
// that cannot be read name none.
func Insurance(resources [][]byte) med.Insurance {
	var c coverages
	for _, raw := range resources {
		if e, _, err := parseOne(raw); err == nil {
			c.add(e)
		}
	}
	return c.best()
}

// coverages finds a patient's insurance while resources go by.
type coverages struct {
	found bool
	top   coverage
	names map[string]string // of organizations, by fullUrl and Type/id
}

// coverage is one mention of an insurance.
type coverage struct {
	rank       int // Coverage 3, ExplanationOfBenefit 2, Claim 1
	active     bool
	when       time.Time
	id         string
	payer, ref string
	member     string
}

func (c *coverages) add(e entry) {
	v := e.res
	switch e.typ {
	case "Organization":
		if c.names == nil {
			c.names = map[string]string{}
		}
		c.names[e.fullURL] = trimmed(v.get("name"))
		c.names["Organization/"+e.id] = trimmed(v.get("name"))
	case "Coverage":
		c.offer(v, coverageOf(v, 3, e.id, moment(v, "period")))
	case "ExplanationOfBenefit":
		for inner := range v.get("contained").items() {
			if inner.get("resourceType").str() == "Coverage" {
				c.offer(inner, coverageOf(inner, 2, e.id, moment(v, "billablePeriod")))
			}
		}
	case "Claim":
		for i := range v.get("insurance").items() {
			c.offer(i, coverage{rank: 1, active: true, id: e.id, when: moment(v, "billablePeriod"), payer: trimmed(i.at("coverage", "display"))})
		}
	}
}

func coverageOf(v val, rank int, id string, when time.Time) coverage {
	out := coverage{
		rank: rank, id: id, when: when,
		active: v.get("status").str() == "active",
		payer:  trimmed(v.at("payor", "display")), ref: v.at("payor", "reference").str(),
		member: trimmed(v.get("subscriberId")),
	}
	for id := range v.get("identifier").items() {
		if out.member == "" && hasType(id, "MB") {
			out.member = trimmed(id.get("value"))
		}
	}
	return out
}

// moment is when the insurance was in force.
func moment(v val, period string) time.Time {
	for _, s := range []string{v.at(period, "start").str(), v.get("created").str()} {
		if t, ok := instant(s); ok {
			return t
		}
	}
	return time.Time{}
}

func (c *coverages) offer(v val, x coverage) {
	if x.payer == "" && x.ref == "" && x.member == "" || v.get("status").str() == "entered-in-error" {
		return
	}
	if !c.found || x.before(c.top) {
		c.top, c.found = x, true
	}
}

func (c coverage) before(d coverage) bool {
	switch {
	case c.rank != d.rank:
		return c.rank > d.rank
	case c.active != d.active:
		return c.active
	case !c.when.Equal(d.when):
		return c.when.After(d.when)
	}
	return c.id > d.id
}

func (c *coverages) best() med.Insurance {
	payer := c.top.payer
	if payer == "" {
		payer = c.names[c.top.ref]
	}
	payer, _ = clean(payer, false)
	member, _ := clean(c.top.member, false)
	return med.Insurance{Payer: phi(strings.TrimSpace(payer)), MemberID: phi(member)}
}
