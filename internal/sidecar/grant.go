// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"errors"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/token"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

// More than this by one person pages at once as P1, and asks for a fresh second
// factor. It does not block care.
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
			OpenedAt: now.Unix(), ExpiresAt: now.Add(s.cfg.GrantFor).Unix(), Many: st.many(who, now),
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
	out := g.said(c)
	out.Opened = opened
	return out, nil
}

// many reports whether one more grant by the person is more than anybody needs.
func (s *state) many(who [2]string, now time.Time) bool {
	open, fresh := 1, 1
	for _, g := range s.byWho[who] {
		if g.ExpiresAt > now.Unix() {
			open++
		}
		if g.OpenedAt > now.Add(-time.Hour).Unix() {
			fresh++
		}
	}
	return open > manyOpen || fresh > manyNewHour
}

func keyOf(c *token.Claims, patient string) grantKey {
	return grantKey{c.Caller.Issuer, c.Caller.Subject, c.Caller.Session, patient}
}

// said is the grant as its person is told of it.
func (g *grant) said(c *token.Claims) *pb.Grant {
	out := &pb.Grant{Id: g.ID, OpenedAt: g.OpenedAt, ExpiresAt: g.ExpiresAt, ReasonCode: g.ReasonCode, Signed: g.Signed, PageP1: g.Many}
	if g.Many && factorOf(c, out) != med.MFAFresh {
		out.MaxAge = int64(token.FreshMFA.Seconds())
	}
	return out
}

// factorOf says how lately the person had proved a second factor when the grant
// was opened, or since.
func factorOf(c *token.Claims, g *pb.Grant) med.MFA { return c.FactorAt(time.Unix(g.GetOpenedAt(), 0)) }

// stand puts the grant into what the context says.
func stand(on *token.Context, c *token.Claims, g *pb.Grant) {
	on.Grant, on.GrantExpires = g.GetId(), g.GetExpiresAt()*1000
	on.GrantMany, on.Factor = g.GetPageP1(), factorOf(c, g)
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
	return g.said(c)
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
