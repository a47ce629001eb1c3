// SPDX-License-Identifier: Apache-2.0

// Package fhir reads FHIR R4: bundles and NDJSON as streams, and their resources
// as patients and records of the house. Every resource is kept whole beside what
// was mapped from it, so that an export loses nothing.
//
// It opens no file and no connection. Its errors and warnings name places and
// reasons, never a value of the source.
package fhir
