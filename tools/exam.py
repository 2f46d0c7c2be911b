"""The exam of chapter 14: judge the nets on the validation images, seal, and open the test images, once.

    python -m tools.exam judge   what the nets of records/exam.py say of the validation images; the small net as a file
    python -m tools.exam seal    write the claim and its seal; then commit it
    python -m tools.exam open    open the test images for the sealed claim, write diary and results; then commit them

The weights lie in `.proofs/exam/`, where `python -m tools.records exam` has put them, and have to be those whose
digests are sealed. `open` wants the seal to be committed: in the history it stands before the results.
"""

import hashlib
import json
import subprocess
import sys

from exp.nb_08 import get_fashion_data, get_mnist_data, mirrored, nn, normalize, prepare, torch
from exp.nb_14 import (
    Exam,
    calibration_error,
    calibration_floor,
    digits_net,
    fold_norms,
    forecast,
    in_int8,
    judge,
    logits_of,
    mcnemar,
    packed,
    pooled,
    temperature,
    unpacked,
    wilson,
    write_safetensors,
)
from records import exam as record
from tools.chapters import ROOT
from tools.records import stored

FOLDER = ROOT / "exp" / "data" / "exam"
NET = FOLDER / "digits.safetensors"
CODE = (judge, logits_of, pooled, wilson, forecast, mcnemar)
TEST = {"mnist": lambda: get_mnist_data("test"), "fashion": lambda: get_fashion_data("test")}
PAIRS = [("record CNN, int8", "ensemble of 3"), ("record CNN, int8", "record CNN"), ("record CNN", "CNN, 1 epoch"),
         ("ensemble of 3", "best MLP, 0"), ("best MLP, 0", "MLP, 20 epochs"), ("MLP, 20 epochs", "MLP, 1 epoch"),
         ("best MLP, 0", "CNN, 1 epoch"), ("Fashion, record CNN", "Fashion, MLP"),
         ("Fashion, record CNN, asked twice", "Fashion, record CNN")]  # fmt: skip
CLAIM = {
    "claim": "On MNIST's test images the record CNN in 8 bits is right more often than the ensemble of three MLPs.",
    "test": "McNemar's exact test, two-sided: p < 0.01",
    "images": "the 10,000 test images of MNIST and the 10,000 of Fashion-MNIST, all of them, once",
    "also expected": [
        "at least ten of the twelve test accuracies lie in their forecasts",
        "as on validation, p < 0.05 and the same net ahead in all pairs but two: 8 bits against 32 show no difference, "
        "and for the ensemble against its first member (p = 0.049 on validation) nothing is predicted",
        "the MLP of 20 epochs says more than it has right, by 1.5 points or more; the record CNN, trained on softened "
        "labels, says less, by 8 points or more",
        "divided by the temperature of validation, the calibration error of every MNIST net is below 1 %",
        "the first 5,000 test images of MNIST are easier for every MNIST net than the last 5,000, as its authors say",
    ],
    "whatever comes out": "it stays; no net is changed, exchanged or trained again",
}
MEMBERS = [name for name in record.NETS if name.startswith("best MLP")]


def load(name):
    "Return a net of the record, with its weights, in 32 bits. Raise `ValueError` if they are others."
    recipe = record.NETS[name]
    state = torch.load(record.file_of(recipe), weights_only=True)
    [told] = [run["weights"] for run in stored("exam")["runs"] if run["setting"] == recipe]
    if record.digest(state) != told:
        raise ValueError(f"{name}: found weights {record.digest(state)[:12]}, expected {told[:12]}")
    model = prepare(recipe | {"images": 1_000}, tiny())[0].model
    model.load_state_dict(state)
    return model.eval()


def tiny():
    "Return a few images of zeros: enough to build a net."
    return torch.zeros(51_000, 1, 1, 1).expand(51_000, 1, 28, 28), torch.zeros(51_000, dtype=torch.long)


def nets():
    "Return {name: (data set, function of images)} of all that is judged: the record's nets, and what is made of them."
    found = {name: (recipe["data"], load(name)) for name, recipe in record.NETS.items()}
    members = [found[name][1] for name in MEMBERS]
    found["ensemble of 3"] = "mnist", lambda x: pooled([model(x) for model in members])
    found["record CNN, int8"] = "mnist", digits_net(NET)[0]
    found["Fashion, record CNN, asked twice"] = "fashion", mirrored(found["Fashion, record CNN"][1])
    return found


def images(data, x):
    "Return images as a recipe of that data set normalises them."
    recipe = next(recipe for recipe in record.NETS.values() if recipe["data"] == data)
    return normalize(x, recipe["mean"], recipe["std"]).view(-1, 1, 28, 28)


def judged(papers):
    "Let each net answer; `papers`: {data set: (images, labels)}. Return {name: logits}."
    return {name: logits_of(model, images(data, papers[data][0])) for name, (data, model) in nets().items()}


def figures(logits, y, degrees=None):
    "Return accuracy, how sure, loss, ECE and its floor; with temperature `degrees`, loss and ECE after it too."
    said = judge(logits, y)
    told = {"acc": said.right.double().mean().item(), "mean_sure": said.sure.mean().item(),
            "nll": nn.functional.cross_entropy(logits.double(), y).item(), "ece": calibration_error(said)}  # fmt: skip
    told["floor"], told["floor_95"] = calibration_floor(said.sure, 200, torch.Generator().manual_seed(0))
    if degrees:
        cooled = logits.double() / degrees
        told |= {"T": degrees, "nll_T": nn.functional.cross_entropy(cooled, y).item(),
                 "ece_T": calibration_error(judge(cooled, y))}  # fmt: skip
    return {name: round(value, 5) for name, value in told.items()}


def write(name, data):
    "Store JSON: a line for each name."
    FOLDER.mkdir(exist_ok=True)
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in data.items())
    (FOLDER / name).write_text(f"{{\n{lines}\n}}\n", encoding="utf-8", newline="\n")


def read(name):
    "Return stored JSON."
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def write_net():
    "Store the record net, its norms folded, in 8 bits."
    recipe = record.NETS["record CNN"]
    plain = fold_norms(load("record CNN"), recipe["plan"])
    about = {"plan": recipe["plan"], "mean": str(recipe["mean"]), "std": str(recipe["std"])}
    FOLDER.mkdir(exist_ok=True)
    write_safetensors(NET, in_int8(plain.state_dict()), about)


def judge_validation():
    "Let the nets answer the validation images; store what they say."
    write_net()
    papers = {}
    for data in TEST:
        x, y = {"mnist": get_mnist_data, "fashion": get_fashion_data}[data]()
        papers[data] = x[50_000:], y[50_000:]
    found, kept = judged(papers), {}
    for name, logits in found.items():
        y = papers["fashion" if name.startswith("Fashion") else "mnist"][1]
        kept[name] = packed(judge(logits, y)) | figures(logits, y, temperature(logits, y))
    write("valid.json", kept)


def predictions():
    "Return what is predicted from validation: accuracy and forecast of each net, and each pair."
    valid = {name: unpacked(row) for name, row in read("valid.json").items()}
    each = {}
    for name, said in valid.items():
        right, n = int(said.right.sum()), len(said.right)
        low, high = forecast(right, n, 10_000)
        each[name] = {"valid": right, "of": n, "low": round(low, 5), "high": round(high, 5)}
    pairs = [[a, b, *mcnemar(valid[a].right, valid[b].right)] for a, b in PAIRS]
    return {"nets": each, "pairs": pairs}


def claim():
    "Return all that is sealed as data."
    digests = {record.name_of(run["setting"]): run["weights"] for run in stored("exam")["runs"]}
    files = {name: hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() for name in ("valid.json", NET.name)}
    return CLAIM | {"recipes": record.NETS, "weights": digests, "files": files, "predictions": predictions()}


def committed(name):
    "Return whether git holds a file of the exam as it is."
    shown = subprocess.run(["git", "show", f"HEAD:exp/data/exam/{name}"], cwd=ROOT, capture_output=True)
    return shown.returncode == 0 and shown.stdout == (FOLDER / name).read_bytes()


def open_once():
    "Open the test images for the sealed claim; store what came out."
    if not committed("seal.json"):
        raise PermissionError("seal.json: found no commit that holds it as it is, expected one: the seal comes first")
    papers = Exam(FOLDER).open(claim(), *CODE, paper=lambda: {data: get() for data, get in TEST.items()})
    found, valid, kept = judged(papers), read("valid.json"), {}
    for name, logits in found.items():
        y = papers["fashion" if name.startswith("Fashion") else "mnist"][1]
        kept[name] = packed(judge(logits, y)) | figures(logits, y, valid[name]["T"])
    write("test.json", kept)


def main(words):
    "Do what is asked."
    torch.set_num_threads(1)
    if words == ["judge"]:
        judge_validation()
    elif words == ["seal"]:
        print(Exam(FOLDER).seal(claim(), *CODE))
    elif words == ["open"]:
        open_once()
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
