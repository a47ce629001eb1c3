// SPDX-License-Identifier: Apache-2.0

// Package intake reads patients' charts from files into the chart: FHIR bundles,
// directories of them, and Bulk Data NDJSON, with progress, retries and a clean
// stop. Each chart is imported whole or not at all.
//
// It never decides who may import, never puts readable health data on disk, and
// names in its log no file, as file names name people.
package intake
