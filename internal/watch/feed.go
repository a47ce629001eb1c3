// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/medirecord/medirecord/internal/gate"
)

// feed keeps the sidecar's feed open and passes on what it tells.
type feed struct {
	m *Minted

	mu   sync.Mutex
	open *gate.Feed // nil while there is none
	life string
}

// run follows the feed until the context ends, and opens it again when it
// breaks: the sidecar tells again what is not settled.
func (f *feed) run(ctx context.Context) {
	complaint := time.Time{}
	for ctx.Err() == nil {
		err := f.follow(ctx)
		if ctx.Err() == nil && f.m.cfg.Now().Sub(complaint) >= time.Minute {
			complaint = f.m.cfg.Now()
			f.m.cfg.Log.WarnContext(ctx, "the sidecar does not tell what it minted: it keeps it until it does", slog.Any("error", err))
		}
		pause(ctx, time.Second)
	}
}

func (f *feed) follow(ctx context.Context) error {
	in, err := f.m.cfg.Gate.Minted(ctx)
	if err != nil {
		return err
	}
	defer in.Close()
	defer f.hold(nil, "")
	for {
		told, err := in.Next()
		if err != nil {
			return err
		}
		if told.Life == "" {
			return errors.New("the feed does not say whose it is")
		}
		f.m.hear(ctx, told)
		f.hold(in, told.Life)
	}
}

func (f *feed) hold(open *gate.Feed, life string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open, f.life = open, life
}

// settle tells the sidecar what need not be told again. Should that fail, it is
// told again, and settled by the trail as it is.
func (f *feed) settle(ctx context.Context) {
	f.m.mu.Lock()
	life := f.m.waiting.life
	through, any := f.m.waiting.settled()
	f.m.mu.Unlock()
	f.mu.Lock()
	open := f.open
	if f.life != life {
		open = nil
	}
	f.mu.Unlock()
	if !any || open == nil {
		return
	}
	if err := open.Settle(life, through); err != nil && ctx.Err() == nil {
		f.m.cfg.Log.DebugContext(ctx, "the sidecar was not told what is settled", slog.Any("error", err))
	}
}

// hear takes a message of the feed.
func (m *Minted) hear(ctx context.Context, told gate.Mints) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if told.Life != m.life {
		if m.life != "" {
			m.cfg.Log.WarnContext(ctx, "the sidecar began anew: what it minted just before and had not told is not known")
		}
		m.life, m.lost = told.Life, 0
	}
	if told.Lost > m.lost {
		m.noticed = append(m.noticed, flag{
			kind: kindLost, cause: fmt.Sprintf("lost/%s/%d", told.Life, told.Lost), number: int64(told.Lost - m.lost), //nolint:gosec // a count
		})
		m.lost = told.Lost
	}
	for _, c := range m.waiting.add(told.Life, told.Mints) {
		if c.Excess > 0 {
			m.noticed = append(m.noticed, flag{
				kind: kindExcess, cause: "excess/" + c.Nonce, event: c.Event, nonce: c.Nonce, issuer: c.Issuer, subject: c.Subject,
				practice: string(c.Practice), number: c.Excess,
			})
		}
	}
}
