// SPDX-License-Identifier: Apache-2.0

// Package httpapi is the JSON room of the house: it turns an HTTP request into
// one call of the chart, and what the chart gives back into JSON or an RFC 9457
// problem. Every route needs a caller unless it is opened by name.
//
// It never decides who may see what, never reads a token, never keeps an answer,
// and never repeats what a client sent: not in an answer, not in a log line, not
// in a metric.
package httpapi
