// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"errors"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/token"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

// More than this by one person pages at once as P1. It does not block care.
const (
	manyOpen    = 5
	manyNewHour = 10
	// mostGrants is how many a person may have, open or from the last hour: far
	// beyond care, and the end of a search through the ids.
	mostGrants = 200
)

var errManyGrants = errors.New("too many grants")

// grant opens a break-glass grant for one user, patient and session, or
// continues the one that is open, unless the asker says that this one is over.
// It is on disk before it is returned.
func (s *Service) grant(c *token.Claims, patient, reasonCode, over string) (*pb.Grant, error) {
	now := s.cfg.Now()
	st := s.state
	st.journal.Lock()
	defer st.journal.Unlock()
	who := [2]string{c.Caller.Issuer, c.Caller.Subject}
	key := keyOf(c, patient)
	g := st.grants[key]
	opened := g == nil || g.ExpiresAt <= now.Unix() || g.ID == over
	if opened {
		if st.prune(who, now); len(st.byWho[who]) >= mostGrants {
			return nil, errManyGrants
		}
		g = &grant{
			grantKey: key, ID: med.NewUUID(now), ReasonCode: reasonCode,
			OpenedAt: now.Unix(), ExpiresAt: now.Add(s.cfg.GrantFor).Unix(),
		}
		signed, err := s.cfg.Minter.SignGrant(token.GrantClaims{
			ID: g.ID, Issuer: g.Issuer, Subject: g.Subject, Session: g.Session, Patient: med.PatientID(g.Patient),
			ReasonCode: g.ReasonCode, OpenedAt: time.Unix(g.OpenedAt, 0), ExpiresAt: time.Unix(g.ExpiresAt, 0),
		})
		if err != nil {
			return nil, err
		}
		g.Signed = signed
		if err := st.write(line{Grant: g}); err != nil {
			return nil, err
		}
		st.apply(line{Grant: g})
	}
	open, fresh := 0, 0
	for _, other := range st.byWho[who] {
		if other.ExpiresAt > now.Unix() {
			open++
		}
		if other.OpenedAt > now.Add(-time.Hour).Unix() {
			fresh++
		}
	}
	out := g.said()
	out.Opened, out.PageP1 = opened, opened && (open > manyOpen || fresh > manyNewHour)
	return out, nil
}

func keyOf(c *token.Claims, patient string) grantKey {
	return grantKey{c.Caller.Issuer, c.Caller.Subject, c.Caller.Session, patient}
}

func (g *grant) said() *pb.Grant {
	return &pb.Grant{Id: g.ID, OpenedAt: g.OpenedAt, ExpiresAt: g.ExpiresAt, ReasonCode: g.ReasonCode, Signed: g.Signed}
}

// openGrant returns the grant that the caller's session has for the patient, to
// go on reading under it; nil when there is none, or the asker says that it is
// over. Whether it is, the database knows: what is refused here is only to go on.
func (s *Service) openGrant(c *token.Claims, patient, over string) *pb.Grant {
	v, ok := s.state.open.Load(keyOf(c, patient))
	if !ok {
		return nil
	}
	g := v.(*grant) //nolint:forcetypeassert // nothing else is stored
	if g.ExpiresAt <= s.cfg.Now().Unix() {
		return nil
	}
	if g.ID == over {
		s.state.open.CompareAndDelete(g.grantKey, g)
		return nil
	}
	return g.said()
}

// prune forgets the person's grants that neither are open nor count for the
// rate any more.
func (s *state) prune(who [2]string, now time.Time) {
	var keep []*grant
	for _, g := range s.byWho[who] {
		switch {
		case g.ExpiresAt > now.Unix() || g.OpenedAt > now.Add(-time.Hour).Unix():
			keep = append(keep, g)
		case s.grants[g.grantKey] == g:
			delete(s.grants, g.grantKey)
			s.open.CompareAndDelete(g.grantKey, g)
		}
	}
	s.byWho[who] = keep
}
