// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/medirecord/medirecord/internal/outbound"
	"github.com/medirecord/medirecord/internal/siem"
)

// maxBody is about how large a body becomes: what receivers take by default.
const maxBody = 1 << 20

func newCarrier(cfg *Config, s *Sink) carrier {
	client := outbound.New(outbound.Config{
		Dev: cfg.Dev, Allow: cfg.Allow, RootCAs: s.RootCAs, Certificate: s.Certificate, ConnectTimeout: 5 * time.Second, Timeout: cfg.Wait,
	})
	if s.Kind == Syslog {
		return &syslogCarrier{client: client, sink: s, cfg: cfg}
	}
	return &postCarrier{client: client, sink: s, cfg: cfg, most: s.Batch}
}

// postCarrier sends by POST. What was answered with a success is taken.
//
// A batch that is refused for what it is (too large, or an entry that the
// receiver will not have) is halved, so that everything before the one entry
// arrives, and the failure names that entry's leaf. There the stream stops:
// to leave an entry out is for a person to decide.
type postCarrier struct {
	client *outbound.Client
	sink   *Sink
	cfg    *Config
	most   int // entries sent at once, just now
	n      int64
}

func (c *postCarrier) reset() { c.n = 0; c.client.Close() }

func (c *postCarrier) taken(context.Context) (int64, error) { return c.n, nil }

func (c *postCarrier) send(ctx context.Context, events []siem.Event) (int, error) {
	events = events[:min(len(events), c.most)]
	body, n, err := c.body(events)
	if err != nil {
		return 0, err
	}
	answer, err := c.client.Post(ctx, c.sink.Address, c.header(body), body)
	if err != nil {
		return 0, err
	}
	if err := c.judge(answer, events[0].Index); err != nil {
		if refused(answer) {
			c.most = max(1, n/2)
		}
		return 0, err
	}
	c.most = min(c.sink.Batch, 2*c.most)
	c.n += int64(n)
	return n, nil
}

func (c *postCarrier) body(events []siem.Event) (body []byte, n int, err error) {
	if c.sink.Kind == OTLP {
		for {
			body, err = siem.OTLP(c.cfg.Source, c.sink.Format, events)
			if err != nil || len(body) <= maxBody || len(events) == 1 {
				return body, len(events), err
			}
			events = events[:max(1, len(events)*(maxBody/2)/len(body))]
		}
	}
	for i := range events {
		if len(body) > maxBody-siem.EventBytes && i > 0 {
			break
		}
		body = siem.HEC(body, c.cfg.Source, c.sink.Format, &events[i])
		n++
	}
	return body, n, nil
}

func (c *postCarrier) header(body []byte) map[string]string {
	h := map[string]string{"Content-Type": "application/json"}
	if c.sink.Kind == OTLP {
		h["Content-Type"] = "application/x-protobuf"
	}
	if c.sink.Token != "" {
		h["Authorization"] = "Splunk " + c.sink.Token
	}
	if c.sink.HMACKey != nil {
		h["X-MediRecord-Timestamp"], h["X-MediRecord-Signature"] = siem.Sign(c.sink.HMACKey, c.cfg.Now(), body)
	}
	return h
}

// refused reports whether the batch itself is what the receiver does not like.
func refused(a *outbound.Answer) bool {
	switch a.Status {
	case http.StatusOK, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// judge says whether the answer is that of a receiver that has the batch.
func (c *postCarrier) judge(a *outbound.Answer, leaf int64) error {
	failed := codedError{"status_" + strconv.Itoa(a.Status), leaf}
	switch {
	case a.Status == http.StatusTooManyRequests || a.Status == http.StatusServiceUnavailable:
		return &laterError{failed, retryAfter(a.RetryAfter, c.cfg.Now())}
	case a.Status < 200 || a.Status > 299:
		return &failed
	case c.sink.Kind == OTLP:
		if n, err := siem.Rejected(a.Body); err != nil {
			return &codedError{"answer_unreadable", leaf}
		} else if n != 0 {
			return &codedError{"rejected", leaf}
		}
	case strings.HasPrefix(a.ContentType, "application/json"):
		// Splunk says what it thinks of the events in here, with 0 for success.
		var said struct {
			Code json.Number `json:"code"`
		}
		if json.Unmarshal(bytes.TrimSpace(a.Body), &said) == nil && said.Code != "" && said.Code != "0" {
			return &codedError{"rejected", leaf}
		}
	}
	return nil
}

// longest is how long a receiver may tell us to stay away.
const longest = 5 * time.Minute

// retryAfter reads the header: seconds, or a date.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(s); err == nil && n >= 0 {
		return min(time.Duration(min(n, 3600))*time.Second, longest)
	}
	if at, err := http.ParseTime(s); err == nil {
		return min(max(at.Sub(now), 0), longest)
	}
	return 0
}

func splitHostPort(address string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(address)
	if err == nil && (host == "" || port == "") {
		err = net.InvalidAddrError("incomplete")
	}
	return host, port, err
}
