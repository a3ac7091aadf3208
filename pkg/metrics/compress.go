package metrics

import (
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// A page compresses seven- to tenfold at the cheapest level; more effort saves
// a tenth more. The figures are in docs/design/exposition.md.
const (
	gzipLevel  = gzip.BestSpeed
	zstdLevel  = zstd.SpeedFastest
	zstdWindow = 128 << 10 // lines that are alike are near each other
)

// compressor is a writer that is used again and again.
type compressor interface {
	io.WriteCloser
	Reset(io.Writer)
}

// compressors keeps writers by the name of their content coding.
type compressors struct {
	gzip, zstd sync.Pool // of compressor
}

// init says how writers are made. No option is wrong, so none fails.
func (c *compressors) init() {
	c.gzip.New = func() any {
		zip, _ := gzip.NewWriterLevel(io.Discard, gzipLevel)
		return compressor(zip)
	}
	c.zstd.New = func() any {
		z, _ := zstd.NewWriter(io.Discard, zstd.WithEncoderLevel(zstdLevel), zstd.WithWindowSize(zstdWindow),
			zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
		return compressor(z)
	}
}

// of returns the pool of a content coding; nil for none.
func (c *compressors) of(coding string) *sync.Pool {
	switch coding {
	case "gzip":
		return &c.gzip
	case "zstd":
		return &c.zstd
	default:
		return nil
	}
}

// coding chooses from an Accept-Encoding header (RFC 9110, 12.5.3): "zstd" or
// "gzip", whichever the client likes better, zstd if it likes both; empty for
// neither. A star stands for gzip, which everybody can read.
func coding(header string) string {
	qualities := map[string]float64{}
	for offer := range strings.SplitSeq(header, ",") {
		name, parameter, _ := strings.Cut(offer, ";")
		name = strings.ToLower(strings.TrimSpace(name))
		quality := 1.0
		if q, found := strings.CutPrefix(strings.TrimSpace(parameter), "q="); found {
			value, err := strconv.ParseFloat(q, 64)
			if err != nil || !(value >= 0 && value <= 1) {
				continue
			}
			quality = value
		}
		qualities[name] = quality
	}
	if _, named := qualities["gzip"]; !named {
		qualities["gzip"] = qualities["*"]
	}
	switch {
	case qualities["zstd"] > 0 && qualities["zstd"] >= qualities["gzip"]:
		return "zstd"
	case qualities["gzip"] > 0:
		return "gzip"
	default:
		return ""
	}
}
