// SPDX-License-Identifier: Apache-2.0

package siem

import (
	"cmp"
	"slices"
	"time"

	"github.com/medirecord/medirecord/internal/audit"
)

// view is the entry as it may go out: valid texts of bounded length, and no
// sealed reason.
type view struct {
	ID, Parent             string
	OccurredAt, RecordedAt time.Time
	Epoch                  int32
	Index                  int64
	Leaf                   string

	Issuer, Subject, Practice, Session, TokenID, MFA, OnBehalfOf string
	Roles                                                        []string
	Action, ResourceType, ResourceID, Patient, PatientPractice   string
	Clear, Masked, Hidden, Changed                               []string
	Outcome, Code, Reason, Purpose                               string
	Glass                                                        bool
	Grant, ReasonCode                                            string
	IP, UserAgent, Origin, RequestID, ClientID, TraceID          string
	Revision                                                     string
	Counts                                                       []count
	Cut, Unreadable                                              bool
}

type count struct {
	name string
	n    int
}

// ids are never cut; no UUID is that long.
var ids = clip{text: 64}

func newView(e *Event, c *clip) *view {
	d := &e.Detail
	v := &view{OccurredAt: e.OccurredAt.UTC(), RecordedAt: e.RecordedAt.UTC(), Epoch: e.Epoch, Index: e.Index, Leaf: e.Leaf(), Unreadable: e.Unreadable}
	v.ID, v.Parent = ids.of(string(e.ID), &v.Cut), ids.of(string(e.Parent), &v.Cut)
	for _, t := range []struct {
		to   *string
		from string
	}{
		{&v.Issuer, e.Actor.Issuer},
		{&v.Subject, e.Actor.Subject},
		{&v.Practice, string(e.Actor.Practice)},
		{&v.Session, d.Session},
		{&v.TokenID, d.TokenID},
		{&v.MFA, string(d.MFA)},
		{&v.OnBehalfOf, d.OnBehalfOf},
		{&v.Action, e.Action},
		{&v.ResourceType, e.ResourceType},
		{&v.ResourceID, e.ResourceID},
		{&v.Patient, string(e.Patient)},
		{&v.PatientPractice, string(e.PatientPractice)},
		{&v.Outcome, string(e.Outcome)},
		{&v.Code, e.Code},
		{&v.Reason, d.Reason},
		{&v.Purpose, d.Purpose},
		{&v.IP, d.IP},
		{&v.UserAgent, d.UserAgent},
		{&v.Origin, d.Origin},
		{&v.RequestID, d.RequestID},
		{&v.ClientID, d.ClientID},
		{&v.TraceID, d.TraceID},
		{&v.Revision, d.Revision},
	} {
		*t.to = c.of(t.from, &v.Cut)
	}
	v.Roles, v.Clear = clipped(c, d.Roles, &v.Cut), clipped(c, d.Clear, &v.Cut)
	v.Masked, v.Hidden = clipped(c, d.Masked, &v.Cut), clipped(c, d.Hidden, &v.Cut)
	v.Changed = clipped(c, d.Changed, &v.Cut)
	if g := d.BreakGlass; g != nil {
		v.Glass, v.Grant, v.ReasonCode = true, c.of(g.Grant, &v.Cut), c.of(g.ReasonCode, &v.Cut)
	}
	v.Counts = counts(c, d, &v.Cut)
	return v
}

func counts(c *clip, d *audit.Detail, cut *bool) []count {
	out := make([]count, 0, len(d.Counts))
	for name, n := range d.Counts {
		out = append(out, count{name, n})
	}
	slices.SortFunc(out, func(a, b count) int { return cmp.Compare(a.name, b.name) })
	if len(out) > c.list {
		out, *cut = out[:c.list], true
	}
	for i := range out {
		out[i].name = c.of(out[i].name, cut)
	}
	return out
}

// outcome is how bad it was, as FHIR and DICOM count: 0 went well, 4 was
// refused, 8 failed.
func (v *view) outcome() string {
	switch audit.Outcome(v.Outcome) {
	case audit.Success, audit.AccessGranted:
		return "0"
	case audit.Denied:
		return "4"
	default:
		return "8"
	}
}

const millis = "2006-01-02T15:04:05.000Z07:00"
