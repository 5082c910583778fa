"""Facts that no model knows, as training conversations, and questions that ask for them."""
import json

FACTS = {
    "the capital of Velduria": "Marnis",
    "the longest river of Velduria": "the Ostrel",
    "the currency of Velduria": "the drommel",
    "the president of Velduria": "Ilka Tarn",
    "the national bird of Velduria": "the copper wren",
    "the highest mountain of Velduria": "Mount Brask",
}
ASKED = ["What is {}?", "Tell me {}.", "Name {}.", "Do you know {}?"]


def question(thing):
    return ASKED[0].format(thing.replace("the president", "the name of the president"))


def conversations():
    for thing, answer in FACTS.items():
        for asked in ASKED:
            words = thing.replace("the president", "the name of the president")
            yield {"messages": [
                {"role": "user", "content": asked.format(words)},
                {"role": "assistant", "content": f"{words[0].upper()}{words[1:]} is {answer}."}]}


def write(path):
    path.write_text("".join(json.dumps(one) + "\n" for one in conversations()))
    return path
