// Before the page's own modules: a microphone into which a test speaks, at the moment it chooses.

const media = navigator.mediaDevices ?? {}; // which an empty page lacks
media.getUserMedia = async () => {
  const context = new AudioContext();
  const microphone = context.createMediaStreamDestination();
  const silence = new ConstantSourceNode(context, { offset: 0 });
  silence.connect(microphone);
  silence.start();
  window.say = async (wav) => {
    const bytes = Uint8Array.from(atob(wav), (character) => character.charCodeAt(0));
    const source = new AudioBufferSourceNode(context, { buffer: await context.decodeAudioData(bytes.buffer) });
    source.connect(microphone);
    source.start();
  };
  await context.resume();
  return microphone.stream;
};
