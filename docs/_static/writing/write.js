// The model of chapter 15 in plain JavaScript: one place at a time, with a cache of keys and values, in 64 bits.
// Each function has its counterpart in exp/nb_15.py: extend, chances, _context, write.

function halves(base64) {                                // 16-bit floats → numbers
  const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  const words = new DataView(bytes.buffer), found = new Float64Array(bytes.length / 2);
  for (let i = 0; i < found.length; i++) {
    const word = words.getUint16(2 * i, true), power = (word >> 10) & 31, rest = word & 1023;
    const size = power ? (1 + rest / 1024) * 2 ** (power - 15) : rest * 2 ** -24;
    found[i] = word >> 15 ? -size : size;
  }
  return found;
}

function linear(x, weight, bias) {                       // F.linear: weight [out, in], row by row
  const out = new Float64Array(bias ? bias.length : weight.length / x.length);
  for (let i = 0, w = 0; i < out.length; i++) {
    let sum = bias ? bias[i] : 0;
    for (let j = 0; j < x.length; j++) sum += weight[w++] * x[j];
    out[i] = sum;
  }
  return out;
}

function layerNorm(x, weight, bias) {                    // nn.LayerNorm
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
  const square = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
  return x.map((value, i) => (value - mean) / Math.sqrt(square + 1e-5) * weight[i] + bias[i]);
}

function softmax(scores) {
  const largest = Math.max(...scores), powers = scores.map((score) => Math.exp(score - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

function rotate(x, place) {                              // rotate: pairs of numbers, turned by angles that grow
  const half = x.length / 2, out = new Float64Array(x.length);
  for (let i = 0; i < half; i++) {
    const angle = place * 10000 ** (-i / half), cos = Math.cos(angle), sin = Math.sin(angle);
    out[i] = x[i] * cos - x[i + half] * sin;
    out[i + half] = x[i] * sin + x[i + half] * cos;
  }
  return out;
}

const plus = (a, b) => a.map((value, i) => value + b[i]);

class Writer {
  constructor({ chars, heads, layers, window, parts, weights }) {
    Object.assign(this, { chars: [...chars], heads, layers, window, p: {} });
    const numbers = halves(weights);
    let from = 0;
    for (const [name, size] of parts) this.p[name] = numbers.subarray(from, (from += size));
    this.width = this.p["norm.weight"].length;
  }

  newCache() { return Array.from({ length: this.layers }, () => ({ keys: [], values: [] })); }

  extend(number, cache) {                                // one more place; returns logits, and where each head looks
    const { p, width, heads } = this, size = width / heads, looks = [];
    let x = p["embed.weight"].slice(width * number, width * number + width);
    cache.forEach(({ keys, values }, block) => {
      const at = (name) => p[`blocks.${block}.${name}`], norm = (k) => layerNorm(x, at(`norm${k}.weight`), at(`norm${k}.bias`));
      const all = linear(norm(1), at("attention.project.weight"), at("attention.project.bias"));
      const cut = (part, head) => all.slice(part * width + head * size, part * width + head * size + size), place = keys.length;
      const each = Array.from({ length: heads }, (_, head) => head);
      keys.push(each.map((head) => rotate(cut(1, head), place)));
      values.push(each.map((head) => cut(2, head)));
      const mixed = new Float64Array(width);
      for (const head of each) {
        const query = rotate(cut(0, head), place);
        const shares = softmax(keys.map((key) => key[head].reduce((sum, k, i) => sum + k * query[i], 0) / Math.sqrt(size)));
        shares.forEach((share, j) => values[j][head].forEach((v, i) => { mixed[head * size + i] += share * v; }));
        looks.push(shares);
      }
      x = plus(x, linear(mixed, at("attention.out.weight"), at("attention.out.bias")));
      const up = linear(norm(2), at("up.weight"), at("up.bias")).map((value) => Math.max(value, 0));
      x = plus(x, linear(up, at("down.weight"), at("down.bias")));
    });
    return { logits: linear(layerNorm(x, p["norm.weight"], p["norm.bias"]), p["embed.weight"]), looks };
  }
}

function chances(logits, temperature, topK) {
  if (temperature === 0) {
    const best = logits.indexOf(Math.max(...logits));
    return logits.map((_, i) => Number(i === best));
  }
  const least = topK < logits.length ? [...logits].sort((a, b) => b - a)[topK - 1] : -Infinity;
  return softmax(logits.map((value) => (value < least ? -Infinity : value / temperature)));
}

const contextStart = (length, T) => Math.max(0, Math.ceil((length - T) / (T >> 1)) * (T >> 1));

// Write on for ever: yields each character with the chance that the model gave it, and where the place before it looked.
function* write(model, prompt, { temperature = 0, topK = Infinity, seed = 0 } = {}) {
  const ids = [...prompt].map((char) => model.chars.indexOf(char)), generator = new Generator(seed);
  if (!ids.length || ids.includes(-1)) throw new Error(`found ${JSON.stringify([...prompt].find((c) => !model.chars.includes(c)) ?? "")}, expected characters of the series`);
  let start = -1, cache, seen, told;
  for (;;) {
    const from = contextStart(ids.length, model.window);
    if (from !== start) [start, cache, seen] = [from, model.newCache(), from];
    while (seen < ids.length) told = model.extend(ids[seen++], cache);
    const shares = chances(told.logits, temperature, topK), sum = shares.reduce((total, share) => total + share, 0);
    const drawn = generator.uniform(0, 1) * sum;
    let next = 0, below = shares[0];
    while (below <= drawn && next < shares.length - 1) below += shares[++next];
    ids.push(next);
    yield { char: model.chars[next], chance: softmax(told.logits)[next], start, looks: told.looks };
  }
}
