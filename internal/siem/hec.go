// SPDX-License-Identifier: Apache-2.0

package siem

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// HEC appends the event to a body for Splunk's HTTP event collector, which is
// also our own HTTPS form: objects one after the other, a line each. The
// fields carry the stable ids.
func HEC(body []byte, src Source, f Format, e *Event) []byte {
	event := json.RawMessage(f.Encode(src, e))
	if f == ATNA {
		event = asciiJSON(string(event))
	}
	at := e.OccurredAt.UnixMilli()
	body = append(body, asciiJSON(struct {
		Time       json.RawMessage   `json:"time"`
		Host       string            `json:"host,omitempty"`
		Source     string            `json:"source"`
		SourceType string            `json:"sourcetype"`
		Event      json.RawMessage   `json:"event"`
		Fields     map[string]string `json:"fields"`
	}{
		Time: fmt.Appendf(nil, "%d.%03d", at/1000, at%1000), Host: src.Host, Source: "medirecord", SourceType: "medirecord:" + string(f), Event: event,
		Fields: map[string]string{"event_id": string(e.ID), "epoch": strconv.Itoa(int(e.Epoch)), "leaf": strconv.FormatInt(e.Index, 10)},
	})...)
	return append(body, '\n')
}

// Sign returns what the two headers of a signed body say: the second it was
// signed in, and "v1=" with the HMAC-SHA-256, in hexadecimal, of that second,
// a full stop and the body. A receiver refuses seconds that are long past.
func Sign(key []byte, now time.Time, body []byte) (timestamp, signature string) {
	timestamp = strconv.FormatInt(now.Unix(), 10)
	m := hmac.New(sha256.New, key)
	m.Write([]byte(timestamp))
	m.Write([]byte{'.'})
	m.Write(body)
	return timestamp, "v1=" + hex.EncodeToString(m.Sum(nil))
}
