// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
	"github.com/medirecord/medirecord/internal/trail"
)

// seen is an entry as the watch looks at it, in or out of the sealed log.
type seen struct {
	epoch      int32
	index      int64
	id, parent string
	issuer     string
	subject    string
	practice   string // the actor's
	of         string // the patient's practice
	patient    string
	outcome    audit.Outcome
	nonce, mac string
	recorded   time.Time
}

func seenOf(s *trail.Sealed) seen {
	r := &s.Record
	return seen{
		epoch: r.Epoch, index: s.Index, id: r.ID, parent: text(r.Parent), issuer: r.ActorIssuer, subject: r.ActorSubject,
		practice: text(r.ActorPractice), of: text(r.PatientPractice), patient: text(r.Patient), outcome: audit.Outcome(r.Outcome),
		nonce: text(r.ContextNonce), mac: text(r.ContextMAC), recorded: r.RecordedAt,
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// call is the primary entry of the entry's call.
func (e *seen) call() string {
	if e.parent != "" {
		return e.parent
	}
	return e.id
}

// bare reports whether the entry names no context at all.
func (e *seen) bare() bool { return e.nonce == "" && e.mac == "" }

// mayBeBare reports whether the entry needs no context: whoever did not get
// that far was shown nothing, and a machine of ours does some things without
// one, about nobody's data. Those that work on patients have one.
func (e *seen) mayBeBare() bool {
	if e.outcome == audit.Denied || e.outcome == audit.Failure {
		return true
	}
	name, service := strings.CutPrefix(e.subject, "service:")
	return service && e.issuer == "medirecord" && e.patient == "" && name != "import" && name != "operator"
}

// old reports whether the entry is from before there were entry MACs: recorded,
// by the database's clock, before the schema knew of them.
func (e *seen) old(since time.Time) bool {
	return e.recorded.Before(since) && !strings.HasPrefix(e.mac, "e1.")
}

// entries holds the next sealed entries against their contexts, flags those
// that are not of theirs, and moves on, in one transaction. It returns how many
// it looked at.
func (m *Minted) entries(ctx context.Context) (int, error) {
	sealed, err := m.cfg.Trail.Sealed(ctx, m.at.epoch, m.at.next, batch)
	missing := errors.Is(err, trail.ErrMissing)
	if err != nil && !missing {
		return 0, err
	}
	if len(sealed) == 0 && !missing {
		more, err := m.next(ctx)
		if more {
			return 1, err
		}
		return 0, err
	}
	es := make([]seen, 0, len(sealed))
	for i := range sealed {
		es = append(es, seenOf(&sealed[i]))
	}
	flags, entered, err := m.judge(ctx, es)
	if err != nil {
		return 0, err
	}
	for i := range sealed {
		if sealed[i].Altered {
			flags = append(flags, alteredFlag(&es[i]))
		}
	}
	next := m.at.next + int64(len(sealed))
	if missing && len(sealed) == 0 {
		// Nothing to hold against anything. Verifying tells what happened to it;
		// here it must not stop the rest.
		flags = append(flags, flag{kind: kindUnknown, epoch: m.at.epoch, index: next, cause: causeOf(m.at.epoch, next)})
		next++
	}
	if err := m.record(ctx, flags, func(ctx context.Context, db pgdb.DBTX) error {
		return m.cfg.DB.Q.AdvanceWatch(ctx, db, pgdb.AdvanceWatchParams{Epoch: m.at.epoch, NextIndex: next})
	}); err != nil {
		return 0, err
	}
	n := int(next - m.at.next)
	m.at.next = next
	m.checked.Add(uint64(n)) //nolint:gosec // at most a batch
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range entered {
		m.waiting.entered(&entered[i])
	}
	return n, nil
}

func causeOf(epoch int32, index int64) string { return fmt.Sprintf("entry/%d/%d", epoch, index) }

// judge returns a flag for each entry that is not of its context, and the
// entries that tell of one truthfully: by a MAC that attests, or by saying that
// the call came to nothing before it learned of its context.
func (m *Minted) judge(ctx context.Context, es []seen) (flags []flag, entered []seen, err error) {
	var named []seen
	for _, e := range es {
		switch {
		case !e.bare():
			named = append(named, e)
		case e.mayBeBare():
			entered = append(entered, e)
		default:
			flags = append(flags, flagOf(&e, kindMAC))
		}
	}
	claims := make([]gate.Claim, len(named))
	for i, e := range named {
		claims[i] = gate.Claim{
			Nonce: e.nonce, MAC: e.mac, Event: e.call(), Issuer: e.issuer, Subject: e.subject, Practice: e.practice, Patient: e.patient,
			RecordedAt: e.recorded, Child: e.parent != "",
		}
	}
	said, err := m.cfg.Gate.Attest(ctx, claims)
	if err != nil {
		return nil, nil, err
	}
	for i := range named {
		e := &named[i]
		switch {
		case said[i] == gate.Good:
			entered = append(entered, *e)
		case e.old(m.at.since):
		case said[i] == gate.UnknownKey:
			flags = append(flags, flagOf(e, kindUnknown))
		default:
			flags = append(flags, flagOf(e, kindMAC))
		}
	}
	return flags, entered, nil
}

// overdue looks for the contexts that no sealed entry carried in time: in the
// trail as it is, sealed or not, so that a sealer that lags raises no alarm
// here. What is not there either is flagged.
func (m *Minted) overdue(ctx context.Context) error {
	for {
		m.mu.Lock()
		late := m.waiting.overdue(m.cfg.Now().Add(-m.cfg.Patience), batch)
		m.mu.Unlock()
		if len(late) == 0 {
			return nil
		}
		entered, err := m.lookUp(ctx, late)
		if err != nil {
			return err
		}
		m.mu.Lock()
		for i := range entered {
			m.waiting.entered(&entered[i])
		}
		m.mu.Unlock()
		var flags []flag
		for _, c := range late {
			if !c.done {
				flags = append(flags, flag{
					kind: kindUnentered, cause: "context/" + c.Nonce, event: c.Event, nonce: c.Nonce, issuer: c.Issuer, subject: c.Subject,
					practice: string(c.Practice), patient: c.Patient,
				})
			}
		}
		if err := m.record(ctx, flags, nil); err != nil {
			return err
		}
		m.mu.Lock()
		for _, c := range late {
			m.waiting.settle(c)
		}
		m.mu.Unlock()
	}
}

// lookUp returns the entries of the calls that the contexts were minted for, as
// far as they tell the truth of a context.
func (m *Minted) lookUp(ctx context.Context, late []*minted) ([]seen, error) {
	p := pgdb.EventsOfParams{Since: late[0].At, Until: late[0].At}
	for _, c := range late {
		if c.Event == "" {
			continue // by nobody who says which call it was for
		}
		p.Ids = append(p.Ids, c.Event)
		if c.At.Before(p.Since) {
			p.Since = c.At
		} else if c.At.After(p.Until) {
			p.Until = c.At
		}
	}
	const slack = 15 * time.Minute // a call begins before its context; clocks differ
	p.Since, p.Until = p.Since.Add(-slack), p.Until.Add(slack)
	rows, err := m.cfg.DB.Q.EventsOf(ctx, m.cfg.Trail.Pool(), p)
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	es := make([]seen, len(rows))
	for i, r := range rows {
		es[i] = seen{
			id: r.EventID, parent: text(r.ParentID), issuer: r.ActorIssuer, subject: r.ActorSubject, practice: text(r.ActorPractice),
			patient: text(r.PatientID), outcome: audit.Outcome(r.Outcome), nonce: text(r.CtxNonce), mac: text(r.CtxMac), recorded: r.RecordedAt,
		}
	}
	_, entered, err := m.judge(ctx, es) // the bad ones are flagged when they are sealed
	return entered, err
}
