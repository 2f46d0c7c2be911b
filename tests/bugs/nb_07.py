"""Chapter 07: realistic bugs in convolutions, their gradients, pools, layers, shapes and fields."""

from tools.bugs import Bug

HAND = "class _ByHand(torch.autograd.Function):"

BUGS = [
    # images that move
    Bug("images move up, not down", "top, left = frame - down, frame - right", "top, left = frame + down, frame - right"),
    Bug("rows and columns of a shift exchanged", "top, left = frame - down, frame - right", "top, left = frame - right, frame - down"),
    Bug("what comes in is grey, not the ground", "padded = F.pad(x, [frame] * 4, value=x.min().item())", "padded = F.pad(x, [frame] * 4)"),
    # places and checks
    Bug("a place too few", "return (n + 2 * padding - k) // stride + 1", "return (n + 2 * padding - k) // stride"),
    Bug("padding counts on one side only", "return (n + 2 * padding - k) // stride + 1", "return (n + padding - k) // stride + 1"),
    Bug("a negative stride is taken", "if not isinstance(stride, Integral) or stride < 1:", "if not isinstance(stride, Integral) or stride == 0:"),
    Bug("a negative padding is taken", "if not isinstance(padding, Integral) or padding < 0:", "if False:"),
    Bug("a kernel larger than the image is taken", "    if n + 2 * padding < k:\n", "    if False:\n"),
    Bug("a single image is taken for images", "    if x.dim() != 4:\n        raise ValueError(f\"{who}: found x of shape",
        "    if x.dim() not in (3, 4):\n        raise ValueError(f\"{who}: found x of shape"),
    Bug("channels that do not fit are taken", "if channels is not None and x.shape[1] != channels:", "if False:"),
    # loops and slices
    Bug("loops: a flipped kernel", "out.append((square * kernel).sum() + bias)", "out.append((square * kernel.flip(1, 2)).sum() + bias)"),
    Bug("a bias of one number for all kernels is taken", "    if b is not None and b.shape != (len(w),):\n", "    if False:\n"),
    Bug("loops: only square kernels", "image[:, i:i+height, j:j+width]", "image[:, i:i+width, j:j+width]"),
    Bug("loops: padding on one side", "x, out, (height, width) = F.pad(x, [padding] * 4), []", "x, out, (height, width) = F.pad(x, [2 * padding, 0, 2 * padding, 0]), []"),
    Bug("loops: the bias of each product", "(square * kernel).sum() + bias", "(square * kernel + bias).sum()"),
    Bug("slices: stride in one direction", "j : j + (columns - 1) * stride + 1 : stride]", "j : j + columns]"),
    Bug("slices: rows and columns of a weight exchanged", "pixels = window(x, i, j, places, stride)     # [n, channels, rows, columns]",
        "pixels = window(x, j, i, places, stride)"),
    Bug("slices: the first channel for all", 'torch.einsum("nchw,oc->nohw", pixels, w[:, :, i, j])\n    return out',
        'torch.einsum("nhw,oc->nohw", pixels[:, 0], w[:, :, i, j])\n    return out'),
    Bug("slices: the bias once for each weight", "            out = out + torch.einsum(\"nchw,oc->nohw\", pixels, w[:, :, i, j])\n    return out",
        "            out = out + torch.einsum(\"nchw,oc->nohw\", pixels, w[:, :, i, j]) + b[:, None, None]\n    return out"),
    # unfold and view
    Bug("columns: channels come last", "return torch.stack(rows, dim=2).reshape(len(x), -1, places[0] * places[1])",
        "return torch.stack(rows, dim=1).reshape(len(x), -1, places[0] * places[1])"),
    Bug("unfold: the kernel is transposed", "out = w.flatten(1) @ pixels + b[:, None]", "out = w.transpose(2, 3).flatten(1) @ pixels + b[:, None]"),
    Bug("unfold: the bias is forgotten", "out = w.flatten(1) @ pixels + b[:, None]             # [n, kernels, all places]",
        "out = w.flatten(1) @ pixels"),
    Bug("view: the kernel is transposed", '"nchwij,ocij->nohw"', '"nchwij,ocji->nohw"'),
    Bug("view: stride in one direction", "x.unfold(2, height, stride).unfold(3, width, stride)   #", "x.unfold(2, height, stride).unfold(3, width, 1)   #"),
    # the gradient by hand
    Bug("gradient: the weights of one image only", 'gw[:, :, i, j] = torch.einsum("nohw,nchw->oc", g, pixels)',
        'gw[:, :, i, j] = torch.einsum("nohw,nchw->oc", g[:1], pixels[:1])'),
    Bug("gradient: pixels are overwritten where windows overlap", "window(gx, i, j, places, stride).add_(back)  # a view: so `gx` changes",
        "window(gx, i, j, places, stride).copy_(back)"),
    Bug("gradient: the frame of zeros is not cut off", "return gx[:, :, padding:padding+rows, padding:padding+columns], gw, g.sum((0, 2, 3))",
        "return gx[:, :, :rows, :columns], gw, g.sum((0, 2, 3))"),
    Bug("gradient: the mean for the bias", "padding:padding+columns], gw, g.sum((0, 2, 3))", "padding:padding+columns], gw, g.mean((0, 2, 3))"),
    Bug("by hand: the bias is added after the sum", "        out = b[:, None].repeat(len(x), 1, pixels.shape[2])    # [n, kernels, places]\n        for image, columns in zip(out, pixels):\n            image.addmm_(w.flatten(1), columns)\n        return out",
        "        return w.flatten(1) @ pixels + b[:, None]", cell=HAND),
    Bug("by hand: the gradient of the last image only", "            gw.addmm_(each, columns.T)\n", "            gw = each @ columns.T\n", cell=HAND),
    Bug("by hand: images in the other order", "        for each, columns in zip(g, pixels):\n            gw", "        for each, columns in zip(g.flip(0), pixels.flip(0)):\n            gw", cell=HAND),
    Bug("by hand: places come back in the other order", "torch.stack([rows.T @ each for each in g])", "torch.stack([rows.T @ each.flip(1) for each in g])", cell=HAND),
    Bug("oneDNN stays on", "    torch.backends.mkldnn.enabled = False\n", "    pass\n"),
    Bug("oneDNN stays off", "        torch.backends.mkldnn.enabled = before", "        pass"),
    # the engine
    Bug("engine: fold without padding", "(a, lambda g: F.fold(g, u.shape[2:], **how))", "(a, lambda g: F.fold(g, [n + 2 * padding for n in u.shape[2:]], k, stride=stride)[..., :u.shape[2], :u.shape[3]])"),
    Bug("engine: the bias of the first kernel for all", "+ b.reshape(-1, 1)", "+ b.reshape(-1, 1)[:1]"),
    Bug("engine: max-pool of rows, not squares", "// k, k, columns // k, k).transpose(3, 4)", "// k, k, columns // k, k)"),
    Bug("engine: the smallest of each square", "place = squares.value.argmax(-1, keepdim=True)", "place = squares.value.argmin(-1, keepdim=True)"),
    # pools
    Bug("max-pool splits the gradient among ties", "return squares.flatten(4).max(-1).values", "return squares.flatten(4).amax(-1)"),
    Bug("max-pool over channels", "return squares.flatten(4).max(-1).values", "return squares.flatten(4).amax((1, 4)).unsqueeze(1)"),
    Bug("max-pool ignores its stride", "    squares = x.unfold(2, k, stride).unfold(3, k, stride)\n    return", "    squares = x.unfold(2, k, k).unfold(3, k, k)\n    return"),
    Bug("average pool: the mean of a row", "return x.unfold(2, k, stride).unfold(3, k, stride).mean((4, 5))", "return x.unfold(2, k, stride).unfold(3, k, stride).mean(4)[..., 0]"),
    # layers
    Bug("a layer remembers nothing without autograd", "            return self.forward(x)\n        return super().__call__(x)", "            return self.forward(x)\n        return self.forward(x)"),
    Bug("layer: padding is forgotten", "return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)", "return F.conv2d(x, self.weight, self.bias, self.stride)"),
    Bug("layer: no gradient for the bias", "            self.bias.grad = gb\n", "            pass\n"),
    Bug("layer: every one of the largest gets the gradient", "back = torch.where(place == at, g, 0.0)", "back = torch.where(squares[..., at] == squares.amax(-1), g, 0.0)"),
    Bug("layer: the gradient of a mean is not divided", "add_(g / k ** 2)", "add_(g)"),
    Bug("flatten mixes images", "        return x.flatten(1)\n\n    def gradients", "        return x.transpose(0, 1).reshape(len(x), -1)\n\n    def gradients"),
    # shapes and fields
    Bug("trace moves the statistics of the model", "_layer_by_layer(copy.deepcopy(model), xb)", "_layer_by_layer(model, xb)"),
    Bug("trace draws random numbers of others", "with torch.no_grad(), undisturbed(model):", "with torch.no_grad():"),
    Bug("trace names the layer after the one that fails", "for number, layer in enumerate(_steps(model)):", "for number, layer in enumerate(_steps(model), 1):"),
    Bug("the field forgets the jump", "span, jump = span + reach * jump,", "span, jump = span + reach,"),
    Bug("the field grows by the kernel, not by one less", "(one(layer.kernel_size) - 1)", "one(layer.kernel_size)"),
    Bug("the field forgets dilation", 'one(getattr(layer, "dilation", 1))', "1"),
]
