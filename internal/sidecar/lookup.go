// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/policy"
	"github.com/medirecord/medirecord/internal/token"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

// aboutALookup reports whether a question is about a lookup across practices: to
// put it, or, with a patient, to open one of those that it found.
func aboutALookup(q *pb.May) bool {
	return q.GetResourceType() == "break_glass" && q.GetAction() == "lookup"
}

// mayLookUp says whether the caller may look across practices, and gives the
// lookup its id; named, whether it may open the patient as one of those found.
// Whether it found them, the database knows: here they are counted.
func (s *Service) mayLookUp(ctx context.Context, id uint64, c *token.Claims, q *pb.May, patient med.PatientID) *pb.Answer {
	engine, now := s.cfg.Policy(), s.cfg.Now()
	ruled, err := s.decide(ctx, engine, policy.Input{
		Subject: policy.Subject{Roles: c.Caller.Roles, MFA: c.MFAState(now)}, Action: "lookup",
		Resource: policy.Resource{Type: "break_glass", Sensitivity: med.SensitivityNormal, State: policy.StateLive},
	}, false)
	if err != nil {
		return s.unruled(ctx, id, engine)
	}
	ruling := &pb.Ruling{Said: ruled.said, Revision: engine.Revision()}
	if !ruled.allows {
		return &pb.Answer{Id: id, Answer: &pb.Answer_Ruling{Ruling: ruling}}
	}
	who := asker{c.Caller.Issuer, c.Caller.Subject, c.Caller.Session}
	lookup := strings.ToLower(q.GetGrantId())
	switch {
	case patient == "" && lookup == "":
		lookup = med.NewUUID(now)
		if !s.lookups.ask(who, lookup, now) {
			s.cfg.Log.ErrorContext(ctx, "ALERT lookups across practices beyond care", slog.String("subject", c.Caller.Subject))
			return refuse(id, "rate_limited", "lookups")
		}
	case patient == "" || !s.lookups.open(who, lookup, string(patient), now):
		return refuse(id, "denied", "lookup")
	}
	ruling.Grant = &pb.Grant{Id: lookup, ReasonCode: q.GetEmergency().GetReasonCode(), OpenedAt: now.Unix(), ExpiresAt: now.Add(lookupFor).Unix()}
	ruling.Strict = patient != "" // each of those found against a ticket
	return s.mint(ctx, id, ruling, token.Context{
		Issuer: c.Caller.Issuer, Subject: c.Caller.Subject, Roles: words(c.Caller.Roles), Practice: c.Caller.Practice,
		Action: "break_glass.lookup", Patient: string(patient), Self: string(c.Caller.Patient), Session: c.Caller.Session,
		Grant: lookup, GrantExpires: now.Add(lookupFor).UnixMilli(), Strict: ruling.Strict,
	}, q.GetEventId())
}

// The lookups of one person within an hour, those whom each may open, and how
// soon. PostgreSQL counts the first two as well, across all sidecars.
const (
	mostLookups    = 20
	mostCandidates = 3
	lookupFor      = time.Minute
)

type asker struct{ issuer, subject, session string }

// lookups are those of the last hour, in memory.
type lookups struct {
	mu sync.Mutex
	by map[[2]string][]*lookup
}

type lookup struct {
	id, session string
	at          time.Time
	opened      []string
}

// ask notes one more lookup, and reports whether the person may have it.
func (l *lookups) ask(who asker, id string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for person, theirs := range l.by {
		theirs = slices.DeleteFunc(theirs, func(one *lookup) bool { return now.Sub(one.at) >= time.Hour })
		if l.by[person] = theirs; len(theirs) == 0 {
			delete(l.by, person)
		}
	}
	person := [2]string{who.issuer, who.subject}
	if len(l.by[person]) >= mostLookups {
		return false
	}
	if l.by == nil {
		l.by = map[[2]string][]*lookup{}
	}
	l.by[person] = append(l.by[person], &lookup{id: id, session: who.session, at: now})
	return true
}

// open notes that the patient is opened as one whom the lookup found, and
// reports whether the session made it just now, and has opened no more.
func (l *lookups) open(who asker, id, patient string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, one := range l.by[[2]string{who.issuer, who.subject}] {
		if one.id != id || one.session != who.session || now.Sub(one.at) >= lookupFor {
			continue
		}
		if slices.Contains(one.opened, patient) {
			return true
		}
		if len(one.opened) >= mostCandidates {
			return false
		}
		one.opened = append(one.opened, patient)
		return true
	}
	return false
}
