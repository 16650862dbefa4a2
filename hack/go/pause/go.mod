module slipway.dev/hack/go/pause

go 1.26
