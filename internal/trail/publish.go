// SPDX-License-Identifier: Apache-2.0

package trail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/worm"
)

// Sink keeps what was put there and lets nobody change it. Putting the same
// again is fine.
type Sink interface {
	Put(ctx context.Context, name string, data []byte) error
}

const (
	// cosignPatience is how long one round of the witnesses may take.
	cosignPatience = 15 * time.Second
	// refreshEvery is how often a head that has not changed is cosigned anew: the
	// time of a cosignature says until when nothing was taken back.
	refreshEvery = time.Minute
)

// publish takes each signed head to the witnesses and the sinks. Neither holds
// up sealing: a head that is behind is left out for a newer one.
func (s *Sealer) publish(ctx context.Context) {
	refresh := time.NewTicker(refreshEvery)
	defer refresh.Stop()
	var sunk time.Time
	// What each sink has, of which epoch: unknown at first, so all is put again.
	have := make([]head, len(s.cfg.Sinks))
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.fresh:
		case <-refresh.C:
		}
		h := s.head.Load()
		if h == nil {
			continue
		}
		cosigned, err := s.cosign(ctx, h)
		if err != nil {
			if ctx.Err() == nil {
				s.stats.set(func(st *SealStats) { st.CosignFailures++ })
				s.cfg.Log.ErrorContext(ctx, "checkpoint not cosigned", slog.Int64("size", h.size), slog.Any("error", err))
			}
			s.again(ctx, time.Second)
			continue
		}
		if now := s.cfg.Now(); len(s.cfg.Sinks) > 0 && now.Sub(sunk) >= s.cfg.SinkEvery {
			sunk = now
			for i, sink := range s.cfg.Sinks {
				if err := s.sink(ctx, sink, &have[i], cosigned); err != nil && ctx.Err() == nil {
					s.stats.set(func(st *SealStats) { st.SinkFailures++ })
					s.cfg.Log.ErrorContext(ctx, "checkpoint not in a sink", slog.Int("sink", i), slog.Any("error", err))
				}
			}
		}
	}
}

// again sees to it that the head is tried again after a pause.
func (s *Sealer) again(ctx context.Context, pause time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(pause):
		select {
		case s.fresh <- struct{}{}:
		default:
		}
	}
}

// cosign gets the witnesses' quorum for the head and keeps it. Without
// witnesses our own signature is all there is.
func (s *Sealer) cosign(ctx context.Context, h *head) (*head, error) {
	text := h.note
	if s.cfg.Witnesses != nil {
		within, cancel := context.WithTimeout(ctx, cosignPatience)
		defer cancel()
		b, err := s.cfg.Witnesses.Cosign(within, []byte(h.note), func(old, size int64) ([]tlog.Hash, error) {
			return audit.OpenTree(size, tileReader(within, s.pool, h.epoch)).Consistency(old, size)
		})
		if err != nil {
			return nil, err
		}
		text = string(b)
	}
	if err := s.cfg.fault("cosigned"); err != nil {
		return nil, err
	}
	if _, err := s.pool.Exec(ctx, `
insert into audit.checkpoint as c (epoch, size, note, cosigned_at) values ($1, $2, $3, clock_timestamp())
on conflict (epoch, size) do update set note = excluded.note, cosigned_at = excluded.cosigned_at`, h.epoch, h.size, text); err != nil {
		return nil, postgres.Unavailable(err)
	}
	// The last of each day stays, and the sinks have every one.
	if _, err := s.pool.Exec(ctx, `
delete from audit.checkpoint c where c.epoch = $1 and c.size < $2 and exists (
  select from audit.checkpoint d where d.epoch = c.epoch and d.size > c.size and d.size <= $2 and d.cosigned_at is not null
     and date_trunc('day', d.signed_at at time zone 'UTC') = date_trunc('day', c.signed_at at time zone 'UTC'))`, h.epoch, h.size); err != nil {
		return nil, postgres.Unavailable(err)
	}
	s.stats.set(func(st *SealStats) { st.CosignedAt, st.CosignedSize = s.cfg.Now(), h.size })
	return &head{h.epoch, h.size, text}, nil
}

// sink puts the tiles that are new since the last time, and then the
// checkpoint over them: a checkpoint that is there can be recomputed from there.
func (s *Sealer) sink(ctx context.Context, sink Sink, have *head, h *head) error {
	n, err := note.Open([]byte(h.note), note.VerifierList())
	text := ""
	if u, ok := err.(*note.UnverifiedNoteError); ok { //nolint:errorlint // note returns it itself
		text = u.Note.Text
	} else if n != nil {
		text = n.Text
	}
	c, err := audit.ParseCheckpoint(text)
	if err != nil {
		return err
	}
	old := int64(0)
	if have.epoch == h.epoch {
		old = have.size
	}
	root := url.PathEscape(c.Origin) + "/"
	read := tileReader(ctx, s.pool, h.epoch)
	for _, t := range tlog.NewTiles(audit.TileHeight, old, h.size) {
		id := audit.TileID{L: t.L, N: t.N}
		data, err := read(id)
		if err != nil {
			return err
		}
		if len(data) < t.W*tlog.HashSize {
			return fmt.Errorf("tile %s is shorter than the log", id.Path(t.W))
		}
		if err := sink.Put(ctx, root+id.Path(t.W), data[:t.W*tlog.HashSize]); err != nil {
			return err
		}
	}
	if err := sink.Put(ctx, fmt.Sprintf("%scheckpoint/%020d", root, h.size), []byte(h.note)); err != nil && !sameHead(err, h) {
		return err
	}
	*have = *h
	s.stats.set(func(st *SealStats) { st.SunkAt = s.cfg.Now() })
	return nil
}

// sameHead reports whether what a sink has in the place of the head is that
// head, cosigned at another time: the first stays, and says no less.
func sameHead(err error, h *head) bool {
	var taken *worm.ExistsError
	if !errors.As(err, &taken) {
		return false
	}
	there, _, _ := strings.Cut(string(taken.There), "\n\n")
	ours, _, _ := strings.Cut(h.note, "\n\n")
	return there == ours
}
